/**
 * What the system calls of the posix checks share: paths of any bytes as C strings, one buffer for
 * arguments, and errors as exceptions. Not for more than one thread.
 */
import { check, result } from '../../lib/sys/libc.js'
import { mapAnonymous, viewRegion, type Region } from '../../lib/sys/memory.js'

/** A path as JavaScript has it; a Buffer for names that are not UTF-8. */
export type Path = string | Buffer

const PATH_ROOM = 16384
const SLOTS = 4
const ARGUMENT_BYTES = 4096
/** The largest transfer of `pread`, `pwrite` and their kin. */
export const DATA_BYTES = 4 << 20

const paths = viewRegion(mapAnonymous(PATH_ROOM * SLOTS), PATH_ROOM * SLOTS)
let nextSlot = 0

/** Memory for the structures of the call being made. */
export const argument: Region = viewRegion(mapAnonymous(ARGUMENT_BYTES), ARGUMENT_BYTES)
/** Page-aligned memory for data: valid until the next call that uses it. */
export const data: Region = viewRegion(mapAnonymous(DATA_BYTES), DATA_BYTES)

/** The address of a path's NUL-terminated bytes, good for the next three calls of this. */
export function c(path: Path): number {
  const at = PATH_ROOM * nextSlot
  nextSlot = (nextSlot + 1) % SLOTS
  const bytes = typeof path === 'string' ? Buffer.from(path) : path
  if (bytes.length >= PATH_ROOM) throw new RangeError(`a path of ${bytes.length} bytes`)
  paths.bytes.set(bytes, at)
  paths.bytes[at + bytes.length] = 0
  return paths.address + at
}

/**
 * The result of a raw call just made.
 * @throws SyscallError with `code`, as errors of node:fs have it
 */
export function done(name: string, value: number): number {
  return check(result(value), name)
}
