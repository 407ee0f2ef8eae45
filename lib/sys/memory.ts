/** Memory outside the JavaScript heap: anonymous, or shared with another process by memfd. */
import { SyscallError } from '../errors.js'
import { bind, check, result, viewMemory } from './libc.js'

const c_mmap = bind('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)')
const c_munmap = bind('int munmap(uintptr_t, size_t)')
const c_memfd_create = bind('int memfd_create(const char *, uint32_t)')
const c_ftruncate = bind('int ftruncate(int, int64_t)')
const c_madvise = bind('int madvise(uintptr_t, size_t, int)')
const c_fallocate = bind('int fallocate(int, int, int64_t, int64_t)')
const c_fcntl = bind('int fcntl(int, int, int)')
const c_close = bind('int close(int)')

export const PAGE_SIZE = 4096

const PROT_READ_WRITE = 3
const MAP_SHARED = 1
const MAP_PRIVATE = 2
const MAP_ANONYMOUS = 0x20
const MAP_NORESERVE = 0x4000
/** Below 2 GiB; only x86-64 has it. */
const MAP_32BIT = process.arch === 'x64' ? 0x40 : 0
/** There is 1 GiB of such addresses for all; larger mappings go elsewhere. */
const LOW_BYTES = 64 << 20
const MFD_CLOEXEC = 1
const MFD_ALLOW_SEALING = 2
const F_ADD_SEALS = 1033
const F_SEAL_SHRINK = 2
const F_SEAL_GROW = 4
const MADV_DONTDUMP = 16
const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2

/** One mapped region and the views that the protocol code uses. The mapper owns it. */
export interface Region {
  /** Address in this process, the same in every thread. */
  readonly address: number
  readonly lengthBytes: number
  readonly view: DataView
  readonly bytes: Uint8Array
  /** For ring indices, flags and event words, through `Atomics` only. */
  readonly u16: Uint16Array
}

/** Views of memory that somebody mapped, such as another thread. Does not own it. */
export function viewRegion(address: number, lengthBytes: number): Region {
  return regionOver(viewMemory(address, lengthBytes), address)
}

/** The same views over an ArrayBuffer: protocol code and its tests run on plain memory. */
export function regionOver(buffer: ArrayBuffer, address = 0): Region {
  return {
    address,
    lengthBytes: buffer.byteLength,
    view: new DataView(buffer),
    bytes: new Uint8Array(buffer),
    u16: new Uint16Array(buffer, 0, buffer.byteLength >> 1),
  }
}

/**
 * An address below 2^31 is a small integer of V8. Any other is a number on the heap, made anew each time
 * that an address is computed and passed on: garbage in each request.
 */
function map(lengthBytes: number, flags: number, fd: number): number {
  const low = MAP_32BIT !== 0 && lengthBytes <= LOW_BYTES ? c_mmap(0, lengthBytes, PROT_READ_WRITE, flags | MAP_32BIT, fd, 0) : undefined
  const address = typeof low === 'number' ? low : c_mmap(0, lengthBytes, PROT_READ_WRITE, flags, fd, 0)
  // MAP_FAILED is 2^64 − 1, which does not fit a number
  if (typeof address !== 'number') throw new SyscallError('mmap', -result(-1), `${lengthBytes} bytes`)
  return address
}

/** Maps zeroed private memory; pages are taken when they are touched. */
export function mapAnonymous(lengthBytes: number): number {
  return map(lengthBytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1)
}

/** Maps a memfd, shared with whoever else holds the descriptor. */
export function mapShared(fd: number, lengthBytes: number): number {
  const address = map(lengthBytes, MAP_SHARED, fd)
  c_madvise(address, lengthBytes, MADV_DONTDUMP)
  return address
}

/** Unmaps. No thread may hold a view of the memory any more. */
export function unmap(address: number, lengthBytes: number): void {
  check(result(c_munmap(address, lengthBytes)), 'munmap')
}

/**
 * Memory to share with a backend. Its size is sealed, so that neither side can make the other
 * fault by truncating it.
 */
export function createMemfd(name: string, lengthBytes: number): number {
  const fd = check(result(c_memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)), 'memfd_create')
  try {
    check(result(c_ftruncate(fd, lengthBytes)), 'ftruncate', `memfd to ${lengthBytes} bytes`)
    check(result(c_fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)), 'fcntl', 'F_ADD_SEALS')
  } catch (error) {
    c_close(fd)
    throw error
  }
  return fd
}

/** Memory that grows and outlives this process with another one that holds the descriptor. @throws SyscallError */
export function createGrowingMemfd(name: string): number {
  return check(result(c_memfd_create(name, MFD_CLOEXEC)), 'memfd_create')
}

/** Makes such memory longer. @throws SyscallError */
export function growMemfd(fd: number, lengthBytes: number): void {
  check(result(c_ftruncate(fd, lengthBytes)), 'ftruncate', `memfd to ${lengthBytes} bytes`)
}

/** Gives the pages of a part of a memfd back to the system; it reads as zeroes afterwards. */
export function punchHole(fd: number, offset: number, lengthBytes: number): number {
  return result(c_fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, lengthBytes))
}

/**
 * A thread's own scratch memory for the arguments of system calls: a bump allocator, for objects
 * made once per thread.
 */
let arena: Region | undefined
let arenaUsed = 0
const ARENA_BYTES = 1 << 20

/** Reserves zeroed scratch memory of this thread, 16-byte aligned. It is freed with the thread. */
export function scratch(lengthBytes: number): Region {
  arena ??= viewRegion(mapAnonymous(ARENA_BYTES), ARENA_BYTES)
  const at = arenaUsed
  arenaUsed += (lengthBytes + 15) & ~15
  if (arenaUsed > ARENA_BYTES) throw new RangeError(`scratch arena of ${ARENA_BYTES} bytes is used up`)
  return viewRegion(arena.address + at, lengthBytes)
}

/** How much scratch memory of this thread is in use, for `rewindScratch`. */
export function scratchMark(): number {
  return arenaUsed
}

/** Gives back what was reserved since a mark: for a thread whose objects come and go. None of those may be used any more. */
export function rewindScratch(mark: number): void {
  arena?.bytes.fill(0, mark, arenaUsed)
  arenaUsed = mark
}

/** The last thing a worker thread does before it ends: nothing in it may make a system call later. */
export function releaseScratch(): void {
  if (arena) unmap(arena.address, ARENA_BYTES)
  arena = undefined
  arenaUsed = ARENA_BYTES
}
