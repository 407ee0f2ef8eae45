/**
 * The C library through koffi: the only module of the project that imports it.
 *
 * Pointers are declared `uintptr_t` and travel as plain numbers, so that a call allocates
 * nothing. Every wrapper in lib/sys returns what the call returned or the negative errno; the
 * `check` helper turns the latter into an exception for set-up code.
 */
import koffi from 'koffi'
import { SyscallError } from '../errors.js'

export const KOFFI_STACK_BYTES = 256 << 10
const KOFFI_HEAP_BYTES = 128 << 10
// The blocks for the stack and the strings of calls, per thread. koffi does not give them back when a
// thread ends (native-notes/no-c.md), and its own 2 MiB and 1 MiB are more than any call here needs.
// Once per process and thread: koffi refuses later, also when a test evaluates this module a second time.
if (koffi.config()['sync_stack_size'] !== KOFFI_STACK_BYTES) koffi.config({ sync_stack_size: KOFFI_STACK_BYTES, sync_heap_size: KOFFI_HEAP_BYTES })
const library = koffi.load('libc.so.6')

export const koffiVersion: string = koffi.version

/** A raw C function: numbers in, a number out, −1 for an error. */
export type RawCall = (...args: (number | bigint | string | null)[]) => number

/** Stands between the wrappers and the C library. Sets errno by `setErrno` when it returns an error of its own. */
export interface Intermediary {
  bind(prototype: string, call: RawCall, setErrno: (errno: number) => void): RawCall
  /** @returns −errno instead of a call that runs on the thread pool, or 0 to make it */
  beforeAsync(prototype: string): number
}

/** Where a test puts one, in every thread, before this module is loaded there; there is none otherwise, and no cost. */
export const INTERMEDIARY = Symbol.for('virtiofs-bridge.intermediary')
const intermediary = (globalThis as { [INTERMEDIARY]?: Intermediary })[INTERMEDIARY]

/** Binds a C function by its prototype, such as `int close(int)`. */
export function bind(prototype: string): RawCall {
  const call = library.func(prototype) as unknown as RawCall
  return intermediary === undefined ? call : intermediary.bind(prototype, call, value => { koffi.errno(value) })
}

/** Binds a C function so that it runs on the thread pool; resolves with its result or −errno. */
export function bindAsync(prototype: string): (...args: (number | string | null)[]) => Promise<number> {
  const call = library.func(prototype)
  return (...args) => new Promise((resolve, reject) => {
    const error = intermediary?.beforeAsync(prototype) ?? 0
    if (error < 0) return resolve(error)
    call.async(...args, (error: Error | null, value: number) => {
      // errno is only right here, inside the callback
      if (error) reject(error)
      else resolve(value < 0 ? -koffi.errno() : value)
    })
  })
}

/**
 * Binds a C function that is only known by its address.
 * @param prototype such as `int fill(uintptr_t, int64_t)`
 */
export function bindAddress(prototype: string): (address: number, ...args: (number | Uint8Array)[]) => number {
  const type = koffi.proto(prototype)
  return (address, ...args) => koffi.call(BigInt(address), type, ...args) as number
}

/** Loads a shared library so that whatever is loaded later finds its symbols. @throws Error with what the linker says */
export function loadGlobally(path: string): void {
  koffi.load(path, { global: true })
}

/** An ArrayBuffer over raw memory. Reading it after the memory was unmapped crashes the process. */
export function viewMemory(address: number, lengthBytes: number): ArrayBuffer {
  return koffi.view(address, lengthBytes) as ArrayBuffer
}

/** The result of a raw call, or the negative errno of the call just made on this thread. */
export function result(value: number): number {
  return value < 0 ? -koffi.errno() : value
}

/**
 * Passes a good result on.
 * @param value what a wrapper of lib/sys returned
 * @throws SyscallError when it is negative
 */
export function check(value: number, syscall: string, detail?: string): number {
  if (value < 0) throw new SyscallError(syscall, -value, detail)
  return value
}

const c_syscall = bind('int64_t syscall(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t)')

/** A system call by number, for those that act on the calling thread alone or have no wrapper. */
export function syscall(number: number, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number {
  return result(c_syscall(number, a, b, c, d, e, f))
}
