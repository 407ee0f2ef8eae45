/**
 * Between the kernel's numbers of nodes and open files, which outlive the backend, and those of the
 * present session with it. Requests and replies are changed in place.
 *
 * What a request refers to is kept apart from the shared memory, by slot: it can be written again
 * for another session, whatever the device did to the memory.
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseLkIn, FuseOpenIn, FuseOpenOut, FuseOutHeader, FuseRename2In } from '../fuse/abi.js'
import { givesEntry, handleAt, handleIsValid, openOutAt, secondHandleAt, secondNodeAt } from '../fuse/id-fields.js'
import { Op, opcodeRow } from '../fuse/opcodes.js'
import { RENAME_EXCHANGE } from '../sys/dir.js'
import { O_CREAT, O_EXCL, O_TRUNC } from '../sys/file.js'
import type { Region } from '../sys/memory.js'
import { setU64 } from '../wire/u64.js'
import { HandleTable } from './handle-table.js'
import { KnownNodes } from './known-nodes.js'
import { RequestName } from './request-name.js'
import type { SlotTable } from './slot-table.js'

const NONE = -1
/** A node or an open file that cannot be brought back. */
export const HOPELESS = -2
/** The file is there, and what is in it stays. */
const NOT_REOPENED = O_CREAT | O_EXCL | O_TRUNC
const F_UNLCK = 2
const LK_TYPE = 16
const FIRST_SESSION = 1

/** Whether a request removes or moves the entry with its first name. */
function takesName(opcode: number): boolean {
  return opcode === Op.UNLINK || opcode === Op.RMDIR || opcode === Op.RENAME || opcode === Op.RENAME2
}

export class SessionIds {
  readonly nodes = new KnownNodes()
  readonly handles = new HandleTable()
  readonly #slots: SlotTable
  // of each slot
  readonly #node: Int32Array
  readonly #secondNode: Int32Array
  readonly #handle: Int32Array
  readonly #secondHandle: Int32Array
  /** Flags of open(2). */
  readonly #flags: Uint32Array
  readonly #name = new RequestName()

  constructor(slots: SlotTable, slotCount: number) {
    this.#slots = slots
    this.#node = new Int32Array(slotCount).fill(NONE)
    this.#secondNode = new Int32Array(slotCount).fill(NONE)
    this.#handle = new Int32Array(slotCount).fill(NONE)
    this.#secondHandle = new Int32Array(slotCount).fill(NONE)
    this.#flags = new Uint32Array(slotCount)
  }

  get #session(): number {
    return this.nodes.table.session
  }

  /** A request that is not the kernel's: what it refers to is right as it is. */
  noteNothing(slot: number): void {
    this.#node[slot] = this.#secondNode[slot] = this.#handle[slot] = this.#secondHandle[slot] = NONE
  }

  /**
   * Notes what a request of the kernel refers to.
   *
   * @returns 0, or −errno: when the kernel was never given such a number, or nobody knows which ids there are
   */
  note(slot: number, opcode: number, view: DataView, head: number): number {
    if (opcodeRow(opcode) === undefined) return -errno.ENOSYS
    this.#node[slot] = this.#nodeAt(view, head + FuseInHeader.nodeid)
    this.#secondNode[slot] = secondNodeAt[opcode] !== 0 ? this.#nodeAt(view, head + secondNodeAt[opcode]!) : NONE
    this.#handle[slot] = handleAt[opcode] !== 0 && handleIsValid(opcode, view, head) ? this.#handleAt(view, head + handleAt[opcode]!) : NONE
    this.#secondHandle[slot] = secondHandleAt[opcode] !== 0 ? this.#handleAt(view, head + secondHandleAt[opcode]!) : NONE
    if (openOutAt(opcode) >= 0) this.#flags[slot] = view.getUint32(head + FuseInHeader.SIZE + FuseOpenIn.flags, true)
    if (this.#node[slot] === HOPELESS || this.#secondNode[slot] === HOPELESS) return -errno.ESTALE
    return this.#handle[slot] === HOPELESS || this.#secondHandle[slot] === HOPELESS ? -errno.EBADF : 0
  }

  #nodeAt(view: DataView, at: number): number {
    // STATFS and SYNCFS may have none
    if (view.getUint32(at, true) === 0 && view.getUint32(at + 4, true) === 0) return NONE
    const node = this.nodes.numbered(view, at)
    return node === NONE ? HOPELESS : node
  }

  #handleAt(view: DataView, at: number): number {
    const low = view.getUint32(at, true)
    const high = view.getUint32(at + 4, true)
    // a file system without OPEN has no handles
    if (low === 0 && high === 0) return NONE
    const handle = this.handles.known(low, high)
    return handle === NONE ? HOPELESS : handle
  }

  nodeOf(slot: number): number {
    return this.#node[slot]!
  }

  secondNodeOf(slot: number): number {
    return this.#secondNode[slot]!
  }

  /** The node that has to be looked up before a request can be sent: −1 when there is none, HOPELESS when it has no path. */
  missingNode(slot: number): number {
    const { table } = this.nodes
    const own = this.#node[slot]!
    const missing = own === NONE ? NONE : table.nextToLookUp(own)
    const second = this.#secondNode[slot]!
    return missing !== NONE || second === NONE ? missing : table.nextToLookUp(second)
  }

  /**
   * What a request removes or moves: −1 when it needs nothing, HOPELESS when nobody has asked for the
   * name, else a node that is not known in this session. The C virtiofsd takes away only names whose
   * files it has been asked for (lookup_name).
   */
  missingChild(slot: number, opcode: number, region: Region): number {
    if (!takesName(opcode) || this.#session === FIRST_SESSION) return NONE
    const child = this.named(slot, opcode, region)
    return child === NONE ? HOPELESS : this.nodes.table.isCurrent(child) ? NONE : child
  }

  /** The handle that has to be opened again before that: −1 for none, HOPELESS when that failed. */
  missingHandle(slot: number): number {
    const missing = this.#missing(this.#handle[slot]!)
    return missing !== NONE ? missing : this.#missing(this.#secondHandle[slot]!)
  }

  #missing(handle: number): number {
    if (handle === NONE) return NONE
    const session = this.handles.session[handle]!
    return session === this.#session ? NONE : session === 0 ? HOPELESS : handle
  }

  /**
   * Whether a request ends or flushes a file that this session has not opened: there is nothing to do.
   *
   * @param opening the handle that is being opened again, or −1
   */
  isMoot(slot: number, opcode: number, opening: number): boolean {
    if (opcode !== Op.RELEASE && opcode !== Op.RELEASEDIR && opcode !== Op.FLUSH) return false
    const handle = this.#handle[slot]!
    return handle !== opening && this.#missing(handle) !== NONE
  }

  /** Writes the ids of this session into a request. Nothing may be missing. */
  write(slot: number, opcode: number, view: DataView, head: number): void {
    if (this.#node[slot] !== NONE) this.nodes.putId(view, head + FuseInHeader.nodeid, this.#node[slot]!)
    if (this.#secondNode[slot] !== NONE) this.nodes.putId(view, head + secondNodeAt[opcode]!, this.#secondNode[slot]!)
    if (this.#handle[slot] !== NONE) this.#putHandle(view, head + handleAt[opcode]!, this.#handle[slot]!)
    if (this.#secondHandle[slot] !== NONE) this.#putHandle(view, head + secondHandleAt[opcode]!, this.#secondHandle[slot]!)
  }

  #putHandle(view: DataView, at: number, handle: number): void {
    view.setUint32(at, this.handles.low[handle]!, true)
    view.setUint32(at + 4, this.handles.high[handle]!, true)
  }

  /** Writes the kernel's numbers back, for who watches. */
  restore(slot: number, opcode: number, view: DataView, head: number): void {
    if (this.#node[slot]! >= 0) this.nodes.putNumber(view, head + FuseInHeader.nodeid, this.#node[slot]!)
    if (this.#secondNode[slot]! >= 0) this.nodes.putNumber(view, head + secondNodeAt[opcode]!, this.#secondNode[slot]!)
    if (this.#handle[slot]! >= 0) setU64(view, head + handleAt[opcode]!, this.#handle[slot]!)
    if (this.#secondHandle[slot]! >= 0) setU64(view, head + secondHandleAt[opcode]!, this.#secondHandle[slot]!)
  }

  /** A name of a request; good until the next call. @param which 0 for the first */
  name(slot: number, opcode: number, region: Region, which: number): RequestName {
    return this.#name.read(region, this.#slots, slot, opcode, which)
  }

  /**
   * Translates a good reply for the kernel, and learns from it.
   *
   * @param out byte of the region where its fuse_out_header is
   * @param payload byte where the payload starts, and its length
   */
  replied(slot: number, opcode: number, region: Region, out: number, payload: number, payloadBytes: number): void {
    const { view } = region
    const arg = out + FuseOutHeader.SIZE
    let node = this.#node[slot]!
    if (givesEntry(opcode)) {
      const length = opcode === Op.TMPFILE ? 0 : this.name(slot, opcode, region, 0).length
      node = this.nodes.entry(view, arg, node, this.#name.bytes, 0, length)
    } else if (opcode === Op.READDIRPLUS) {
      this.nodes.entries(region, node, payload, payload + payloadBytes)
    }
    const openOut = openOutAt(opcode)
    if (openOut < 0 || node < 0) return
    const at = arg + openOut + FuseOpenOut.fh
    setU64(view, at, this.handles.add(node, view.getUint32(at, true), view.getUint32(at + 4, true), this.#session, this.#flags[slot]! & ~NOT_REOPENED, opcode === Op.OPENDIR))
  }

  /** What a request that was carried out did to paths and open files, whoever waits for its reply. */
  carriedOut(slot: number, opcode: number, region: Region): void {
    switch (opcode) {
      case Op.UNLINK: case Op.RMDIR: {
        const node = this.named(slot, opcode, region)
        if (node !== NONE) this.nodes.dropPath(node)
        break
      }
      case Op.RENAME: case Op.RENAME2: this.#renamed(slot, opcode, region); break
      case Op.RELEASE: case Op.RELEASEDIR: if (this.#handle[slot]! >= 0) this.handles.remove(this.#handle[slot]!); break
      case Op.SETLK: case Op.SETLKW: {
        const type = region.view.getUint32(this.#slots.at(slot) + FuseInHeader.SIZE + FuseLkIn.lk + LK_TYPE, true)
        if (type !== F_UNLCK && this.#handle[slot]! >= 0) this.handles.lock(this.#handle[slot]!)
      }
    }
  }

  isExchange(slot: number, opcode: number, { view }: Region): boolean {
    return opcode === Op.RENAME2 && (view.getUint32(this.#slots.at(slot) + FuseInHeader.SIZE + FuseRename2In.flags, true) & RENAME_EXCHANGE) !== 0
  }

  /** The node that the first name of a request stands for, as far as it is known, or −1. */
  named(slot: number, opcode: number, region: Region): number {
    const { bytes, length } = this.name(slot, opcode, region, 0)
    return this.nodes.table.findName(this.#node[slot]!, bytes, 0, length)
  }

  #renamed(slot: number, opcode: number, region: Region): void {
    const { table } = this.nodes
    const [from, to] = [this.#node[slot]!, this.#secondNode[slot]!]
    const exchange = this.isExchange(slot, opcode, region)
    const moved = this.named(slot, opcode, region)
    const oldName = exchange ? this.#name.bytes.slice(0, this.#name.length) : this.#name.bytes
    const { bytes, length } = this.name(slot, opcode, region, 1)
    const other = table.findName(to, bytes, 0, length)
    if (other !== NONE && other !== moved) table.clearPath(other)
    if (moved !== NONE) table.setPath(moved, to, bytes, 0, length)
    if (exchange && other !== NONE) table.setPath(other, from, oldName, 0, oldName.length)
    if (moved !== NONE) table.releaseIfUnused(moved)
  }

  /** A request that takes a name has failed: nobody else may need what was asked for its sake. */
  notCarriedOut(slot: number, opcode: number, region: Region): void {
    if (!takesName(opcode)) return
    const node = this.named(slot, opcode, region)
    if (node !== NONE) this.nodes.table.releaseIfUnused(node)
  }

  /** The session ends: what its device gave out is worth nothing. */
  newSession(): void {
    this.nodes.table.newSession()
    this.handles.newSession()
  }

  /** A file was opened again. @param at byte where fuse_open_out is */
  reopened(handle: number, view: DataView, at: number): void {
    this.handles.low[handle] = view.getUint32(at + FuseOpenOut.fh, true)
    this.handles.high[handle] = view.getUint32(at + FuseOpenOut.fh + 4, true)
    this.handles.session[handle] = this.#session
  }

  /** It cannot be opened again: whoever has it gets ESTALE. */
  notReopened(handle: number): void {
    this.handles.giveUp(handle)
  }

  /** Builds the request at `head` that opens a file again. @returns its length in bytes */
  buildOpen(handle: number, { view, bytes }: Region, head: number): number {
    const length = FuseInHeader.SIZE + FuseOpenIn.SIZE
    bytes.fill(0, head, head + length)
    view.setUint32(head + FuseInHeader.len, length, true)
    view.setUint32(head + FuseInHeader.opcode, this.handles.directory[handle] === 1 ? Op.OPENDIR : Op.OPEN, true)
    this.nodes.putId(view, head + FuseInHeader.nodeid, this.handles.node[handle]!)
    view.setUint32(head + FuseInHeader.SIZE + FuseOpenIn.flags, this.handles.flags[handle]!, true)
    return length
  }

  /** A request that made an entry turns into the LOOKUP of that entry. @returns its length in bytes */
  turnIntoLookup(slot: number, opcode: number, region: Region): number {
    const { view, bytes } = region
    const name = this.name(slot, opcode, region, 0)
    const head = this.#slots.at(slot)
    const length = FuseInHeader.SIZE + name.length + 1
    view.setUint32(head + FuseInHeader.len, length, true)
    view.setUint32(head + FuseInHeader.opcode, Op.LOOKUP, true)
    view.setUint16(head + FuseInHeader.total_extlen, 0, true)
    bytes.set(name.bytes.subarray(0, name.length), head + FuseInHeader.SIZE)
    bytes[head + length - 1] = 0
    this.#secondNode[slot] = NONE
    return length
  }
}
