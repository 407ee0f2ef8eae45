/** A longer copy of a typed array, the rest zero. */
export function grown<T extends Uint8Array | Int32Array | Uint32Array | Float64Array>(length: number, old: T): T {
  const more = new (old.constructor as new (length: number) => T)(length)
  more.set(old)
  return more
}
