/** A name in a request, copied out of the slot that the device can write to. */
import { FuseInHeader } from '../fuse/abi.js'
import { opcodeRow } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import { REQUEST_HEAD_BYTES } from './memory-plan.js'
import { NO_BUFFER, type SlotTable } from './slot-table.js'

const CAPACITY = 4096

export class RequestName {
  readonly bytes = new Uint8Array(CAPACITY)
  /** 0 for none. */
  length = 0

  /** @param which of the names of the request, 0 for the first @returns this */
  read({ bytes }: Region, slots: SlotTable, slot: number, opcode: number, which: number): this {
    this.length = 0
    const end = slots.inBytes[slot]!
    const at = slots.at(slot)
    const large = slots.largeIn[slot]!
    const tail = large === NO_BUFFER ? at + REQUEST_HEAD_BYTES : slots.largeAt(large)
    let length = 0
    for (let i = FuseInHeader.SIZE + opcodeRow(opcode)!.inBytes, skip = which; i < end; i++) {
      const byte = bytes[i < REQUEST_HEAD_BYTES ? at + i : tail + i - REQUEST_HEAD_BYTES]!
      if (byte === 0) {
        if (skip-- === 0) {
          this.length = length
          break
        }
      } else if (skip === 0) {
        if (length === CAPACITY) break
        this.bytes[length++] = byte
      }
    }
    return this
  }
}

/** Whether it is . or .. */
export function isDots(bytes: Uint8Array, at: number, length: number): boolean {
  return (length === 1 || (length === 2 && bytes[at + 1] === 46)) && bytes[at] === 46
}
