/**
 * What replies teach about nodes, for a mount that outlives its backend: which file an id of the
 * present session is, and by which path it can be found in the next one.
 *
 * Two ids are of the same file when inode number, generation and type are the same.
 */
import { direntSize, FuseAttr, FuseDirent, FuseDirentplus, FuseEntryOut, FuseInHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import { S_IFMT } from '../sys/file.js'
import type { Region } from '../sys/memory.js'
import { Slot } from './memory-plan.js'
import { NodeTable, ROOT } from './node-table.js'
import { isDots } from './request-name.js'

const NONE = -1
/** Longer names are not looked up again: no file system that a virtiofsd shares has them. */
const PATH_NAME_BYTES = 512

export class KnownNodes {
  readonly table = new NodeTable()

  /** The node with the number that stands at `view[at]`; −1 when there is none with it. */
  numbered(view: DataView, at: number): number {
    return this.table.known(view.getUint32(at, true), view.getUint32(at + 4, true))
  }

  /** Writes the kernel's number of a node. */
  putNumber(view: DataView, at: number, node: number): void {
    view.setUint32(at, node + 1, true)
    view.setUint32(at + 4, this.table.reuse[node]!, true)
  }

  /** Writes the id that it has in this session. */
  putId(view: DataView, at: number, node: number): void {
    view.setUint32(at, this.table.idLow[node]!, true)
    view.setUint32(at + 4, this.table.idHigh[node]!, true)
  }

  /**
   * Gives the kernel the number of an entry's node, and notes its path.
   *
   * @param at byte where fuse_entry_out is
   * @param parent its directory, with the name in it; no name for a file that has none
   * @returns the node, −1 for a negative entry
   */
  entry(view: DataView, at: number, parent: number, names: Uint8Array, nameAt: number, nameBytes: number): number {
    const { table } = this
    const low = view.getUint32(at + FuseEntryOut.nodeid, true)
    const high = view.getUint32(at + FuseEntryOut.nodeid + 4, true)
    if (low === 0 && high === 0) return NONE
    const named = parent >= 0 && nameBytes > 0 && nameBytes <= PATH_NAME_BYTES && !isDots(names, nameAt, nameBytes)
    let node = table.findId(low, high)
    if (node === NONE) {
      node = named ? table.findName(parent, names, nameAt, nameBytes) : NONE
      // the same file that the kernel knows from an older session
      if (node === NONE || table.isCurrent(node) || !this.isSame(node, view, at)) node = table.add()
      table.setId(node, low, high)
      this.#describe(node, view, at)
    }
    if (node !== ROOT) {
      table.lookups[node]!++
      table.sessionLookups[node]!++
      if (table.store !== null) table.store.counted(node)
      if (named) table.setPath(node, parent, names, nameAt, nameBytes)
    }
    this.putNumber(view, at + FuseEntryOut.nodeid, node)
    return node
  }

  /** The same for a READDIRPLUS reply. */
  entries({ view, bytes }: Region, parent: number, from: number, end: number): void {
    for (let at = from; at + FuseDirentplus.SIZE <= end;) {
      const nameBytes = view.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true)
      // the list ends with an entry that is cut off
      if (nameBytes === 0 || nameBytes > end - at || at + direntSize(FuseDirentplus.SIZE, nameBytes) > end) return
      const name = at + FuseDirentplus.SIZE
      // . and .. are listed without being looked up (fuse_direntplus_link)
      if (!isDots(bytes, name, nameBytes)) this.entry(view, at, parent, bytes, name, nameBytes)
      at += direntSize(FuseDirentplus.SIZE, nameBytes)
    }
  }

  #describe(node: number, view: DataView, at: number): void {
    const { table } = this
    const attr = at + FuseEntryOut.attr
    table.inoLow[node] = view.getUint32(attr + FuseAttr.ino, true)
    table.inoHigh[node] = view.getUint32(attr + FuseAttr.ino + 4, true)
    table.generationLow[node] = view.getUint32(at + FuseEntryOut.generation, true)
    table.generationHigh[node] = view.getUint32(at + FuseEntryOut.generation + 4, true)
    table.type[node] = view.getUint32(attr + FuseAttr.mode, true) & S_IFMT
    if (table.store !== null) table.store.described(node)
  }

  /** Whether the entry at `view[at]` is of the file that a node is. */
  isSame(node: number, view: DataView, at: number): boolean {
    const { table } = this
    const attr = at + FuseEntryOut.attr
    return table.inoLow[node] === view.getUint32(attr + FuseAttr.ino, true) && table.inoHigh[node] === view.getUint32(attr + FuseAttr.ino + 4, true)
      && table.generationLow[node] === view.getUint32(at + FuseEntryOut.generation, true)
      && table.generationHigh[node] === view.getUint32(at + FuseEntryOut.generation + 4, true)
      && table.type[node] === (view.getUint32(attr + FuseAttr.mode, true) & S_IFMT)
  }

  /**
   * A node was looked up at its path for this session.
   *
   * @param at byte where fuse_entry_out is
   * @returns false when the entry is of no use; if another file is there, or none, the node has no path any more
   */
  found(node: number, view: DataView, at: number): boolean {
    const { table } = this
    const low = view.getUint32(at + FuseEntryOut.nodeid, true)
    const high = view.getUint32(at + FuseEntryOut.nodeid + 4, true)
    if (table.isCurrent(node)) {
      // the kernel has looked it up meanwhile
      if (table.idLow[node] !== low || table.idHigh[node] !== high) return false
      table.sessionLookups[node]!++
      return true
    }
    if ((low === 0 && high === 0) || !this.isSame(node, view, at)) {
      table.clearPath(node)
      return false
    }
    table.setId(node, low, high)
    table.sessionLookups[node] = 1
    return true
  }

  /**
   * A name was asked for by this driver itself: what it stands for is kept until the request is done
   * for whose sake that was. The kernel may know the file by another name.
   *
   * @param at byte where fuse_entry_out is
   */
  adopt(view: DataView, at: number, parent: number, name: Uint8Array, nameBytes: number): void {
    const { table } = this
    const low = view.getUint32(at + FuseEntryOut.nodeid, true)
    const high = view.getUint32(at + FuseEntryOut.nodeid + 4, true)
    let node = table.findId(low, high)
    if (node === NONE) {
      node = table.add()
      table.setId(node, low, high)
      this.#describe(node, view, at)
      table.setPath(node, parent, name, 0, nameBytes)
    }
    table.sessionLookups[node]!++
  }

  /** A node loses its path, and goes when nobody else needs it. */
  dropPath(node: number): void {
    this.table.clearPath(node)
    this.table.releaseIfUnused(node)
  }

  /** The kernel forgets lookups of a node. */
  forget(low: number, high: number, lookups: number): void {
    const { table } = this
    const node = table.known(low, high)
    if (node <= ROOT) return
    table.lookups[node] = Math.max(0, table.lookups[node]! - lookups)
    if (table.store !== null) table.store.counted(node)
    table.releaseIfUnused(node)
  }

  /** Builds the request at `head` that looks a node up in its directory. @returns its length in bytes */
  buildLookup(node: number, { view, bytes }: Region, head: number): number {
    const length = FuseInHeader.SIZE + this.table.nameBytes[node]! + 1
    bytes.fill(0, head, head + Slot.IN_BYTES)
    view.setUint32(head + FuseInHeader.len, length, true)
    view.setUint32(head + FuseInHeader.opcode, Op.LOOKUP, true)
    this.putId(view, head + FuseInHeader.nodeid, this.table.parent[node]!)
    this.table.copyName(node, bytes, head + FuseInHeader.SIZE)
    return length
  }
}
