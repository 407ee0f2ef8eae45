/** Records of a file whose writer was interrupted at any place: each says which it is and proves itself. */
import { pattern } from '../support/mock-fuse.js'

const MAGIC = 0x50414b53
const HEAD = 12

/** u32 magic, u32 sequence, u32 length of the payload; then the payload, which the sequence decides. */
export function buildRecord(sequence: number, payloadBytes: number): Uint8Array {
  const record = Buffer.alloc(HEAD + payloadBytes)
  record.writeUInt32LE(MAGIC, 0)
  record.writeUInt32LE(sequence, 4)
  record.writeUInt32LE(payloadBytes, 8)
  record.set(pattern(payloadBytes, sequence), HEAD)
  return record
}

/** How many whole and right records a file starts with; a writer that was cut off leaves a part of one behind them. */
export function countRecords(file: Buffer): number {
  let sequence = 0
  for (let at = 0; at + HEAD <= file.length;) {
    const bytes = file.readUInt32LE(at + 8)
    if (file.readUInt32LE(at) !== MAGIC || file.readUInt32LE(at + 4) !== sequence + 1 || at + HEAD + bytes > file.length) break
    if (!file.subarray(at + HEAD, at + HEAD + bytes).equals(pattern(bytes, sequence + 1))) break
    sequence++
    at += HEAD + bytes
  }
  return sequence
}
