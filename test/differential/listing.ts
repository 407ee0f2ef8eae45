/** getdents64: a directory's entries. */
import { result } from '../../lib/sys/libc.js'
import { calls } from './calls.js'
import { region } from './side.js'

export interface Entry {
  /** One character per byte. */
  name: string
  type: number
  ino: bigint
  /** Where lseek goes on behind this entry. */
  offset: bigint
}

const ROOM = 65536
const buffer = region(ROOM)
const chars = Buffer.from(buffer.bytes.buffer)

/**
 * Reads from where the descriptor is to the end, without `.` and `..`.
 * @param room bytes for one call
 * @returns the entries in the order they came, or −errno
 */
export function list(fd: number, room = ROOM): Entry[] | number {
  const entries: Entry[] = []
  for (;;) {
    const length = result(calls.getdents64(fd, buffer.address, Math.min(room, ROOM)))
    if (length < 0) return length
    if (length === 0) return entries
    for (let at = 0; at < length; at += buffer.view.getUint16(at + 16, true)) {
      let end = at + 19
      while (buffer.bytes[end] !== 0) end++
      const name = chars.toString('latin1', at + 19, end)
      if (name === '.' || name === '..') continue
      entries.push({ name, type: buffer.bytes[at + 18]!, ino: buffer.view.getBigUint64(at, true), offset: buffer.view.getBigInt64(at + 8, true) })
    }
  }
}
