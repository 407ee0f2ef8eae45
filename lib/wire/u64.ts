/**
 * 64-bit integers as two 32-bit halves. A BigInt read and write costs ten times as much as this
 * (native-notes/performance.md), and allocates.
 */

const HIGH = 0x1_0000_0000

/**
 * Reads a u64 that is known to be a length, an offset or a count. Exact up to 2^53 − 1; larger
 * values lose their low bits, which no bounds check can mistake for something small.
 */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * HIGH + view.getUint32(at, true)
}

/** Reads an i64 that is known to be an offset. Exact between ±(2^53 − 1). */
export function getI64(view: DataView, at: number): number {
  return view.getInt32(at + 4, true) * HIGH + view.getUint32(at, true)
}

/** Writes a non-negative integer below 2^53. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true)
  view.setUint32(at + 4, Math.floor(value / HIGH), true)
}

/** Copies an opaque u64 (unique, fh, nodeid) without looking at it. */
export function copyU64(to: DataView, toAt: number, from: DataView, fromAt: number): void {
  to.setUint32(toAt, from.getUint32(fromAt, true), true)
  to.setUint32(toAt + 4, from.getUint32(fromAt + 4, true), true)
}
