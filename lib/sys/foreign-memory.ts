/** Memory of C code that is not ours, copied in and out: nothing here keeps a view of it. */
import { bind } from './libc.js'

const c_memcpy = bind('uintptr_t memcpy(uint8_t *, uintptr_t, size_t)')
const c_strnlen = bind('size_t strnlen(uintptr_t, size_t)')
const c_putMemory = bind('uintptr_t memmove(uintptr_t, const uint8_t *, size_t)')

/** Reads `into.length` bytes at an address. */
export function readMemory(address: number, into: Uint8Array): void {
  c_memcpy(into as never, address, into.length)
}

/** Writes bytes to an address. */
export function writeMemory(address: number, from: Uint8Array): void {
  c_putMemory(address, from as never, from.length)
}

/** The bytes of a C string, without its NUL. @param most bytes that are looked at */
export function readCString(address: number, most: number): Buffer {
  const bytes = Buffer.allocUnsafe(c_strnlen(address, most))
  readMemory(address, bytes)
  return bytes
}
