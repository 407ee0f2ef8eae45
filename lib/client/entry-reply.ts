/** Replies that give out nodes and handles, decoded. */
import { FuseAttrOut, FuseEntryOut, FuseOpenOut, FuseStatxOut } from '../fuse/abi.js'
import { getU64 } from '../wire/u64.js'
import { decodeAttributes, decodeStatx, type Attributes } from './attributes.js'
import type { ReplyPlace } from './engine-request.js'
import { timeoutMs, type EntryReply } from './node.js'

/** A handle that OPEN gave out. */
export interface Opened {
  readonly fhLow: number
  readonly fhHigh: number
  /** FOPEN_* */
  readonly openFlags: number
}

export interface Created {
  readonly entry: EntryReply
  readonly opened: Opened
}

export interface AttributesReply {
  readonly attributes: Attributes
  /** Milliseconds that they are good for. */
  readonly attrMs: number
}

/** Decodes a struct fuse_entry_out anywhere in the memory. */
export function entryAt(view: DataView, at: number): EntryReply {
  return {
    nodeidLow: view.getUint32(at + FuseEntryOut.nodeid, true),
    nodeidHigh: view.getUint32(at + FuseEntryOut.nodeid + 4, true),
    generation: view.getBigUint64(at + FuseEntryOut.generation, true),
    entryMs: timeoutMs(getU64(view, at + FuseEntryOut.entry_valid), view.getUint32(at + FuseEntryOut.entry_valid_nsec, true)),
    attrMs: timeoutMs(getU64(view, at + FuseEntryOut.attr_valid), view.getUint32(at + FuseEntryOut.attr_valid_nsec, true)),
    attributes: decodeAttributes(view, at + FuseEntryOut.attr),
  }
}

function openedAt(view: DataView, at: number): Opened {
  return {
    fhLow: view.getUint32(at + FuseOpenOut.fh, true),
    fhHigh: view.getUint32(at + FuseOpenOut.fh + 4, true),
    openFlags: view.getUint32(at + FuseOpenOut.open_flags, true),
  }
}

export const decodeEntry = ({ region, at }: ReplyPlace): EntryReply => entryAt(region.view, at)

export const decodeOpened = ({ region, at }: ReplyPlace): Opened => openedAt(region.view, at)

export const decodeCreated = ({ region, at }: ReplyPlace): Created =>
  ({ entry: entryAt(region.view, at), opened: openedAt(region.view, at + FuseEntryOut.SIZE) })

export const decodeAttrOut = ({ region: { view }, at }: ReplyPlace): AttributesReply => ({
  attributes: decodeAttributes(view, at + FuseAttrOut.attr),
  attrMs: timeoutMs(getU64(view, at + FuseAttrOut.attr_valid), view.getUint32(at + FuseAttrOut.attr_valid_nsec, true)),
})

export const decodeStatxOut = ({ region: { view }, at }: ReplyPlace): AttributesReply => ({
  attributes: decodeStatx(view, at + FuseStatxOut.stat),
  attrMs: timeoutMs(getU64(view, at + FuseStatxOut.attr_valid), view.getUint32(at + FuseStatxOut.attr_valid_nsec, true)),
})
