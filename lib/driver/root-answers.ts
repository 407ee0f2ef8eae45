/**
 * What is known of the root directory and of the file system, for a mount whose device is away:
 * umount(8) asks for both, and every path that leads through the mount for the former.
 */
import { FuseAttrOut, FuseGetattrIn, FuseInHeader, FuseOutHeader, FuseStatfsOut } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'

const ROOT_ID = 1

export class RootAnswers {
  readonly #attributes = new Uint8Array(FuseAttrOut.SIZE)
  readonly #statistics = new Uint8Array(FuseStatfsOut.SIZE)
  #attributesKnown = false
  #statisticsKnown = false

  /** Whether a request about the root can be answered without the device. */
  knows(opcode: number): boolean {
    return opcode === Op.GETATTR ? this.#attributesKnown : opcode === Op.STATFS && this.#statisticsKnown
  }

  /** Builds the GETATTR or STATFS of the root at `head`. @returns its length in bytes */
  buildRequest(opcode: number, { view, bytes }: Region, head: number): number {
    const length = FuseInHeader.SIZE + (opcode === Op.GETATTR ? FuseGetattrIn.SIZE : 0)
    bytes.fill(0, head, head + length)
    view.setUint32(head + FuseInHeader.len, length, true)
    view.setUint32(head + FuseInHeader.opcode, opcode, true)
    view.setUint32(head + FuseInHeader.nodeid, ROOT_ID, true)
    return length
  }

  /** Keeps what a good reply to a request about the root says. @param at byte where its arguments are */
  keep(opcode: number, bytes: Uint8Array, at: number): void {
    if (opcode === Op.GETATTR) {
      this.#attributes.set(bytes.subarray(at, at + FuseAttrOut.SIZE))
      // good for this once
      this.#attributes.fill(0, FuseAttrOut.attr_valid, FuseAttrOut.attr)
      this.#attributesKnown = true
    } else if (opcode === Op.STATFS) {
      this.#statistics.set(bytes.subarray(at, at + FuseStatfsOut.SIZE))
      this.#statisticsKnown = true
    }
  }

  /** Writes a reply at `out`. @returns its length in bytes */
  buildReply(opcode: number, { view, bytes }: Region, out: number, uniqueLow: number, uniqueHigh: number): number {
    const answer = opcode === Op.GETATTR ? this.#attributes : this.#statistics
    const length = FuseOutHeader.SIZE + answer.length
    view.setUint32(out + FuseOutHeader.len, length, true)
    view.setInt32(out + FuseOutHeader.error, 0, true)
    view.setUint32(out + FuseOutHeader.unique, uniqueLow, true)
    view.setUint32(out + FuseOutHeader.unique + 4, uniqueHigh, true)
    bytes.set(answer, out + FuseOutHeader.SIZE)
    return length
  }
}
