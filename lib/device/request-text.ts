/** The names in a request's arguments, checked, as strings. */
import type { DeviceRequest } from './handlers.js'
import { bytesToString } from './byte-string.js'
import { FuseError } from './fuse-error.js'

const NAME_MAX = 255
const SLASH = 0x2f
const DOT = 0x2e

/** Whether bytes can be the name of an entry: one component, and not `.` or `..`. */
export function isEntryName(bytes: Uint8Array): boolean {
  if (bytes.length === 0 || bytes.includes(SLASH) || bytes.includes(0)) return false
  return bytes[0] !== DOT || bytes.length > 2 || (bytes.length === 2 && bytes[1] !== DOT)
}

export class RequestText {
  /** Offset in the arguments behind the NUL of the last string read. */
  end = 0

  /** @throws FuseError EINVAL, ENAMETOOLONG */
  name(request: DeviceRequest, offset: number): string {
    const bytes = this.#bytes(request, offset)
    if (bytes.length > NAME_MAX) throw new FuseError('ENAMETOOLONG')
    if (!isEntryName(bytes)) throw new FuseError('EINVAL')
    return bytesToString(bytes)
  }

  /** Any string up to its NUL: the target of a symbolic link, the name of an attribute. @throws FuseError EINVAL */
  string(request: DeviceRequest, offset: number): string {
    return bytesToString(this.#bytes(request, offset))
  }

  #bytes(request: DeviceRequest, offset: number): Buffer {
    const { args } = request
    const room = request.argsBytes - request.extensionBytes - offset
    const all = Buffer.from(args.buffer, args.byteOffset + request.argsAt + offset, Math.max(0, room))
    const length = all.indexOf(0)
    if (length < 0) throw new FuseError('EINVAL')
    this.end = offset + length + 1
    return all.subarray(0, length)
  }
}
