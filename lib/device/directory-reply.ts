/**
 * READDIR and READDIRPLUS of a served file system.
 *
 * On the wire, offset 1 is behind `.`, 2 behind `..`, and the file system's own come 2 later. An
 * entry that does not fit is dropped, not counted as a lookup, and asked for again.
 */
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut, FuseReadIn } from '../fuse/abi.js'
import { getU64, setU64 } from '../wire/u64.js'
import { stringToBytes } from './byte-string.js'
import type { DirectoryEntry } from './file-system-values.js'
import type { Operation } from './file-system-operations.js'
import { FuseError } from './fuse-error.js'
import type { DeviceRequest } from './handlers.js'
import { checkInteger, checkMode, checkObject, writeEntryOut, writeNameOnly } from './plain-values.js'
import { isEntryName } from './request-text.js'
import { readOffset, type ServedSession } from './served-session.js'

const DOTS = [Buffer.from('.'), Buffer.from('..')] as const
const NAME_MAX = 255
const TYPE_DIRECTORY = 4
/** FUSE_UNKNOWN_INO of libfuse: there is one, and the kernel finds it when it needs it. */
const UNKNOWN_INO = 0xffff_ffff

export const readdir: Operation = {
  call: (s, r) => entriesOf(s, r, false),
  reply: (s, r, entries) => new DirectoryReply(s, r, false).fill(entries as Iterable<DirectoryEntry>),
}

export const readdirplus: Operation = {
  call: (s, r) => entriesOf(s, r, true),
  reply: (s, r, entries) => new DirectoryReply(s, r, true).fill(entries as Iterable<DirectoryEntry>),
}

function entriesOf(session: ServedSession, request: DeviceRequest, plus: boolean): unknown {
  const { args, argsAt, nodeid, replyBytes } = request
  const start = Math.max(0, readOffset(args, argsAt + FuseReadIn.offset, 'EINVAL') - DOTS.length)
  const entries = session.fs.readdir(nodeid, getU64(args, argsAt + FuseReadIn.fh), start, plus, session.caller(request))
  return typeof entries === 'object' && Symbol.asyncIterator in entries ? collect(entries, replyBytes / direntSize(FuseDirent.SIZE, 1)) : entries
}

/** Takes entries, at least as many as fit a reply. */
async function collect(entries: AsyncIterable<DirectoryEntry>, most: number): Promise<DirectoryEntry[]> {
  const list: DirectoryEntry[] = []
  for await (const entry of entries) {
    list.push(entry)
    if (list.length > most) break
  }
  return list
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
  fill(entries: Iterable<DirectoryEntry>): number {
    const { args, argsAt, nodeid } = this.#request
    const offset = readOffset(args, argsAt + FuseReadIn.offset, 'EINVAL')
    for (let i = offset; i < DOTS.length; i++) {
      if (!this.#put(DOTS[i]!, i + 1, i === 0 ? nodeid : UNKNOWN_INO, TYPE_DIRECTORY, undefined)) return this.#full()
    }
    try {
      for (const entry of checkObject('what was returned', entries as Iterable<DirectoryEntry> & object)) {
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
