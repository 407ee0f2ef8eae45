/**
 * The file calls that the load generator times, by address: a path is a C string made before the
 * clock starts, so that a timed call allocates and encodes nothing. Independent of the product's
 * own file calls: benchmarks measure every peer alike, whatever those become.
 */
import { bind, check, result, viewMemory } from '../lib/sys/libc.js'
import { mapAnonymous } from '../lib/sys/memory.js'

const c_open = bind('int open(uintptr_t, int, uint32_t)')
const c_mmap = bind('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)')
const c_fadvise = bind('int posix_fadvise(int, int64_t, int64_t, int)')
const c_madvise = bind('int madvise(uintptr_t, size_t, int)')
const c_mount = bind('int mount(const char *, const char *, const char *, uint64_t, const char *)')

/** Raw calls: the timed ones. They return −1 on failure. */
export const close = bind('int close(int)')
export const statfs = bind('int statfs(uintptr_t, uintptr_t)')
export const stat = bind('int stat(uintptr_t, uintptr_t)')
export const unlink = bind('int unlink(uintptr_t)')
export const read = bind('int64_t read(int, uintptr_t, size_t)')
export const write = bind('int64_t write(int, uintptr_t, size_t)')
export const pread = bind('int64_t pread64(int, uintptr_t, size_t, int64_t)')
export const fsync = bind('int fsync(int)')
export const open = c_open

export const O_RDONLY = 0
export const O_WRONLY = 1
export const O_CREAT = 0o100
export const O_EXCL = 0o200
export const O_TRUNC = 0o1000
export const O_CLOEXEC = 0o2000000
export const O_DIRECT = process.arch === 'arm64' ? 0o200000 : 0o40000

/** Opens by a JavaScript path. @throws SyscallError */
export function openPath(path: string, flags: number): number {
  return check(result(c_open(cString(path), flags | O_CLOEXEC, 0o644)), 'open', path)
}

/** Fails loudly with the errno of the raw call just made. @throws SyscallError */
export function fail(syscall: string, detail: string): never {
  check(result(-1), syscall, detail)
  throw new Error(`${syscall} ${detail}: no errno`)
}

/** Page-aligned memory, for O_DIRECT and for results that nobody reads. */
export const alloc = mapAnonymous

/** C strings of many paths in one block; returns their addresses. */
export function cStrings(paths: string[]): number[] {
  const encoded = Buffer.from(paths.join('\0') + '\0')
  const base = mapAnonymous(encoded.length)
  Buffer.from(viewMemory(base, encoded.length)).set(encoded)
  const addresses: number[] = []
  let at = 0
  for (const path of paths) {
    addresses.push(base + at)
    at += Buffer.byteLength(path) + 1
  }
  return addresses
}

export function cString(path: string): number {
  return cStrings([path])[0]!
}

/** Blocks the thread. */
export function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

/** Drops the clean cached pages of a file from the page cache of its mount. */
export function dropFilePages(fd: number): void {
  const POSIX_FADV_DONTNEED = 4
  c_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
}

/** Maps a file to read, shared. Never unmapped: the process ends soon. */
export function mapFile(fd: number, lengthBytes: number): { address: number; bytes: Uint8Array } {
  const PROT_READ = 1
  const MAP_SHARED = 1
  const address = c_mmap(0, lengthBytes, PROT_READ, MAP_SHARED, fd, 0)
  if (typeof address !== 'number') fail('mmap', `${lengthBytes} bytes`)
  return { address, bytes: new Uint8Array(viewMemory(address, lengthBytes)) }
}

/** Takes the pages of a mapping out of the page table, so that dropFilePages can drop them. */
export function zapMapping(address: number, lengthBytes: number): void {
  const MADV_DONTNEED = 4
  c_madvise(address, lengthBytes, MADV_DONTNEED)
}

/**
 * Drops the unused names of one mount, and with them its cached inodes: the kernel forgets the
 * names of a file system when it is remounted. The server gets a FORGET for each.
 */
export function dropNames(mountpoint: string): void {
  const MS_REMOUNT = 32
  check(result(c_mount(null, mountpoint, null, MS_REMOUNT, null)), 'mount', `-o remount ${mountpoint}`)
}
