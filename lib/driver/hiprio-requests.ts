/** FORGET, BATCH_FORGET and INTERRUPT as /dev/fuse gives them: taken apart for the hiprio queue. */
import { FuseBatchForgetIn, FuseForgetIn, FuseForgetOne, FuseInHeader } from '../fuse/abi.js'
import type { HiprioSink } from './hiprio-queue.js'
import { REQUEST_HEAD_BYTES } from './memory-plan.js'

/** A FORGET at `view[head]`. */
export function handOverForget(view: DataView, head: number, sink: HiprioSink): void {
  const arg = head + FuseInHeader.SIZE
  sink.forget(
    view.getUint32(head + FuseInHeader.nodeid, true), view.getUint32(head + FuseInHeader.nodeid + 4, true),
    view.getUint32(arg + FuseForgetIn.nlookup, true), view.getUint32(arg + FuseForgetIn.nlookup + 4, true))
}

/**
 * A BATCH_FORGET in two parts: its first 80 bytes at `view[head]`, the others at `view[tail]`.
 *
 * @param length bytes of it, as read(2) said: the count lies in memory that the device can change
 */
export function handOverBatch(view: DataView, head: number, tail: number, length: number, sink: HiprioSink): void {
  const said = view.getUint32(head + FuseInHeader.SIZE + FuseBatchForgetIn.count, true)
  const count = Math.min(said, Math.floor((length - FuseInHeader.SIZE - FuseBatchForgetIn.SIZE) / FuseForgetOne.SIZE))
  for (let i = 0, p = FuseInHeader.SIZE + FuseBatchForgetIn.SIZE; i < count; i++, p += FuseForgetOne.SIZE) {
    // 80 is 48 + 2 × 16: no element straddles the two parts
    const one = p < REQUEST_HEAD_BYTES ? head + p : tail + p - REQUEST_HEAD_BYTES
    sink.forget(
      view.getUint32(one + FuseForgetOne.nodeid, true), view.getUint32(one + FuseForgetOne.nodeid + 4, true),
      view.getUint32(one + FuseForgetOne.nlookup, true), view.getUint32(one + FuseForgetOne.nlookup + 4, true))
  }
}
