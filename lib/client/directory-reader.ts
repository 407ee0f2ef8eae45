/** Reads an open directory: READDIR, or READDIRPLUS where the entries' nodes are wanted too. */
import { bytesToString } from '../device/byte-string.js'
import { errno } from '../errors.js'
import { direntSize, FuseDirent, FuseDirentplus, FuseEntryOut } from '../fuse/abi.js'
import { S_IFMT } from '../sys/file.js'
import { exactU64 } from './attributes.js'
import type { ReplyPlace } from './engine-request.js'
import { entryAt } from './entry-reply.js'
import type { EntryReply } from './node.js'
import type { NodeAccess } from './node-access.js'
import type { OpenFile } from './open-file.js'
import type { Tree } from './tree.js'

/** What the kernel asks for at least. */
const READ_BYTES = 32768

export interface DirectoryEntry {
  readonly name: string
  /** Type as in st_mode, 0 when the device does not say. */
  readonly type: number
  readonly ino: number | bigint
  /** Where reading goes on behind it. */
  readonly offsetLow: number
  readonly offsetHigh: number
}

interface Listing {
  entries: DirectoryEntry[]
  /** By entry, for READDIRPLUS; none for `.`, `..` and those without a node. */
  nodes: (EntryReply | undefined)[]
}

export class DirectoryReader {
  readonly #access: NodeAccess
  readonly #file: OpenFile
  readonly #plus: boolean
  #offsetLow = 0
  #offsetHigh = 0

  /** @param plus look every entry up, too, where the device can */
  constructor(access: NodeAccess, file: OpenFile, plus: boolean) {
    this.#access = access
    this.#file = file
    this.#plus = plus && access.operations.session.has('DO_READDIRPLUS')
  }

  /** Goes back to the start, or on behind an entry. */
  seek(offsetLow: number, offsetHigh: number): void {
    this.#offsetLow = offsetLow
    this.#offsetHigh = offsetHigh
  }

  /** The next entries, `.` and `..` included; none at the end; or −errno. */
  async next(signal?: AbortSignal): Promise<DirectoryEntry[] | number> {
    const { operations, table } = this.#access
    const { version } = table
    const listing = await operations.readdir(this.#file, this.#plus, this.#offsetLow, this.#offsetHigh, READ_BYTES, this.#plus ? decodePlus : decodePlain, signal)
    // removed while it is open: readdir(3) says that it is empty
    if (listing === -errno.ENOENT) return []
    if (typeof listing === 'number') return listing
    for (const [i, reply] of listing.nodes.entries()) {
      if (reply) this.#access.accept(this.#file.node, listing.entries[i]!.name, reply, version)?.drop()
    }
    if (listing.entries.some(entry => entry.name === '' || entry.name.includes('/'))) return -errno.EIO
    const last = listing.entries.at(-1)
    if (last) this.seek(last.offsetLow, last.offsetHigh)
    return listing.entries
  }

  /** All that is left, without `.` and `..`. @returns entries or −errno */
  async rest(signal?: AbortSignal): Promise<DirectoryEntry[] | number> {
    const all: DirectoryEntry[] = []
    for (;;) {
      const entries = await this.next(signal)
      if (typeof entries === 'number') return entries
      if (entries.length === 0) return all
      for (const entry of entries) if (entry.name !== '.' && entry.name !== '..') all.push(entry)
    }
  }
}

/** What is in a directory, without `.` and `..`. @param plus look every entry up, too @returns entries or −errno */
export async function entriesOf(tree: Tree, path: string, plus: boolean, signal?: AbortSignal): Promise<DirectoryEntry[] | number> {
  const file = await tree.opendir(path)
  if (typeof file === 'number') return file
  try {
    return await new DirectoryReader(tree.access, file, plus).rest(signal)
  } finally {
    file.drop()
  }
}

function decode({ region, payloadAt, payloadBytes }: ReplyPlace, headerBytes: number, entryBytes: number): Listing {
  const listing: Listing = { entries: [], nodes: [] }
  const { view, bytes } = region
  const end = payloadAt + payloadBytes
  for (let at = payloadAt; at + headerBytes <= end;) {
    const nameBytes = view.getUint32(at + entryBytes + FuseDirent.namelen, true)
    // an entry that is cut off ends the list, as in parse_dirfile
    if (nameBytes > payloadBytes || at + direntSize(headerBytes, nameBytes) > end) break
    const dirent = at + entryBytes
    const name = bytesToString(Buffer.from(bytes.subarray(at + headerBytes, at + headerBytes + nameBytes)))
    listing.entries.push({
      name, type: (view.getUint32(dirent + FuseDirent.type, true) << 12) & S_IFMT, ino: exactU64(view, dirent + FuseDirent.ino),
      offsetLow: view.getUint32(dirent + FuseDirent.off, true), offsetHigh: view.getUint32(dirent + FuseDirent.off + 4, true),
    })
    const looked = entryBytes > 0 && name !== '.' && name !== '..' && exactU64(view, at + FuseEntryOut.nodeid) !== 0
    listing.nodes.push(looked ? entryAt(view, at) : undefined)
    at += direntSize(headerBytes, nameBytes)
  }
  return listing
}

const decodePlain = (reply: ReplyPlace): Listing => decode(reply, FuseDirent.SIZE, 0)
const decodePlus = (reply: ReplyPlace): Listing => decode(reply, FuseDirentplus.SIZE, FuseEntryOut.SIZE)
