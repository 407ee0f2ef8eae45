/**
 * File names as strings, without losing a byte.
 *
 * A name is bytes, and mostly UTF-8. What is UTF-8 becomes the string that it spells; a byte that
 * is not part of valid UTF-8 becomes the lone surrogate U+DC00 + byte, which no valid UTF-8 spells
 * (the "surrogateescape" of Python's PEP 383). So every name is one string, and back again.
 */
import { isUtf8 } from 'node:buffer'

const ESCAPE = 0xdc00
const REPLACEMENT = '\ufffd'
/** With the u flag only those that are not half of a pair. */
const LONE_SURROGATE = /[\ud800-\udfff]/u

/**
 * The string of these bytes.
 *
 * @example
 * const name = Buffer.from([0x61, 0xff])
 * assert.equal(bytesToString(name), 'a\udcff')
 * assert.deepEqual(stringToBytes(bytesToString(name)), name)
 */
export function bytesToString(bytes: Buffer): string {
  const text = bytes.toString()
  return text.includes(REPLACEMENT) && !isUtf8(bytes) ? escaped(bytes) : text
}

/** Length of the sequence that a first byte of UTF-8 announces. */
function sequenceLength(byte: number): number {
  return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4
}

function escaped(bytes: Buffer): string {
  let text = ''
  for (let at = 0; at < bytes.length;) {
    const end = at + sequenceLength(bytes[at]!)
    const part = bytes.subarray(at, end)
    const valid = end <= bytes.length && isUtf8(part)
    text += valid ? part.toString() : String.fromCharCode(ESCAPE + bytes[at]!)
    at = valid ? end : at + 1
  }
  return text
}

/**
 * The bytes of a string.
 * @throws TypeError for a lone surrogate that stands for no byte
 */
export function stringToBytes(text: string): Buffer {
  if (!LONE_SURROGATE.test(text)) return Buffer.from(text)
  const parts: Buffer[] = []
  for (const character of text) {
    const code = character.codePointAt(0)!
    if (code >= ESCAPE + 0x80 && code <= ESCAPE + 0xff) parts.push(Buffer.from([code - ESCAPE]))
    else if (code >= 0xd800 && code <= 0xdfff) throw new TypeError(`name ${JSON.stringify(text)} has a lone surrogate that stands for no byte`)
    else parts.push(Buffer.from(character))
  }
  return Buffer.concat(parts)
}
