/**
 * READDIR and READDIRPLUS of a served file system.
 *
 * On the wire, offset 1 is behind `.`, 2 behind `..`, and the file system's own come 2 later. An
 * entry that does not fit is dropped, not counted as a lookup, and asked for again.
 */
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseReadIn } from '../fuse/abi.js'
import { getU64, setU64 } from '../wire/u64.js'
import { stringToBytes } from './byte-string.js'
import { FuseError, type DirectoryEntry } from './file-system.js'
import type { DeviceRequest } from './handlers.js'
import { checkInteger, checkMode, checkObject, writeEntryOut, writeNameOnly } from './plain-values.js'
import { isEntryName } from './request-text.js'
import { readOffset, type ServedSession } from './served-session.js'

const DOTS = [Buffer.from('.'), Buffer.from('..')] as const
const NAME_MAX = 255
const TYPE_DIRECTORY = 4
/** FUSE_UNKNOWN_INO of libfuse: there is one, and the kernel finds it when it needs it. */
const UNKNOWN_INO = 0xffff_ffff

export function readdir(session: ServedSession, request: DeviceRequest): number {
  return new DirectoryReply(session, request, false).fill()
}

export function readdirplus(session: ServedSession, request: DeviceRequest): number {
  return new DirectoryReply(session, request, true).fill()
}

class DirectoryReply {
  readonly #session: ServedSession
  readonly #request: DeviceRequest
  readonly #plus: boolean
  readonly #room: number
  #used = 0

  constructor(session: ServedSession, request: DeviceRequest, plus: boolean) {
    this.#session = session
    this.#request = request
    this.#plus = plus
    this.#room = Math.min(request.args.getUint32(request.argsAt + FuseReadIn.size, true), request.replyBytes)
  }

  /** @returns bytes of the reply, 0 at the end of the directory */
  fill(): number {
    const { args, argsAt, nodeid } = this.#request
    const offset = readOffset(args, argsAt + FuseReadIn.offset, 'EINVAL')
    for (let i = offset; i < DOTS.length; i++) {
      if (!this.#put(DOTS[i]!, i + 1, i === 0 ? nodeid : UNKNOWN_INO, TYPE_DIRECTORY, undefined)) return this.#full()
    }
    const handle = getU64(args, argsAt + FuseReadIn.fh)
    const start = Math.max(0, offset - DOTS.length)
    try {
      for (const entry of checkObject('what was returned', this.#session.fs.readdir(nodeid, handle, start, this.#plus))) {
        if (!this.#add(entry)) return this.#full()
      }
    } catch (error) {
      // what is written has been counted: it goes out, and the error comes again
      if (this.#used === 0) throw error
    }
    return this.#used
  }

  #full(): number {
    if (this.#used === 0) throw new FuseError('EINVAL')
    return this.#used
  }

  #add(entry: DirectoryEntry): boolean {
    const name = stringToBytes(checkObject('a directory entry', entry).name)
    if (!isEntryName(name) || name.length > NAME_MAX) throw new TypeError(`${JSON.stringify(entry.name)} is no name for a directory entry`)
    const offset = checkInteger('offset', entry.offset, Number.MAX_SAFE_INTEGER - DOTS.length, 1)
    const whole = entry.entry
    const mode = entry.mode ?? whole?.attributes.mode
    const ino = checkInteger('ino', entry.ino ?? whole?.attributes.ino ?? whole?.node ?? UNKNOWN_INO)
    return this.#put(name, offset + DOTS.length, ino, mode === undefined ? 0 : checkMode(mode) >> 12, entry)
  }

  /** @returns false when it does not fit */
  #put(name: Uint8Array, offset: number, ino: number, type: number, entry: DirectoryEntry | undefined): boolean {
    const { reply, replyAt } = this.#request
    const size = direntSize(this.#plus ? FuseDirentplus.SIZE : FuseDirent.SIZE, name.length)
    if (size > this.#room - this.#used) return false
    let at = replyAt + this.#used
    const end = at + size
    if (this.#plus) {
      if (entry?.entry === undefined) writeNameOnly(reply, at, ino, type)
      else writeEntryOut(reply, at, entry.entry, this.#session.timeouts)
      at += FuseEntryOut.SIZE
    }
    setU64(reply, at + FuseDirent.ino, ino)
    setU64(reply, at + FuseDirent.off, offset)
    reply.setUint32(at + FuseDirent.namelen, name.length, true)
    reply.setUint32(at + FuseDirent.type, type, true)
    at += FuseDirent.SIZE
    for (let i = 0; at < end; i++, at++) reply.setUint8(at, name[i] ?? 0)
    this.#used += size
    if (this.#plus && entry?.entry !== undefined) this.#session.counts.add(entry.entry.node)
    return true
  }
}
