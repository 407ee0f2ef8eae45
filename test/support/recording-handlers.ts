/** Handlers before others, on every thread of a device: write down what passes (recording.ts). */
import type { DeviceHost, DeviceRequest, Handlers, HandlersModule } from '../../lib/device/handlers.js'
import { DROPPED, MAY_BLOCK } from '../../lib/device/handlers.js'
import { ROOT_INDEX } from '../../lib/device/passthrough/inode-record.js'
import { InodeTable } from '../../lib/device/passthrough/inode-table.js'
import { Head as TableHead } from '../../lib/device/passthrough/layout.js'
import type { PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { direntSize, FuseAttrOut, FuseBatchForgetIn, FuseDirent, FuseDirentplus, FuseEntryOut, FuseForgetIn, FuseForgetOne, FuseInitOut, FuseOpenOut } from '../../lib/fuse/abi.js'
import { Op, opcodeRow } from '../../lib/fuse/opcodes.js'
import { viewRegion } from '../../lib/sys/memory.js'
import { getU64 } from '../../lib/wire/u64.js'
import { GIVES_ENTRY, Head, Kind, NAME_ROOM, UNFINISHED, Word, type Manner, type RecordingData } from './recording.js'

/** How far back a request that was refused on one thread is looked for on another. */
const LOOK_BACK = 20_000

class Recorder implements Handlers {
  readonly #inner: Handlers
  readonly #words: Int32Array
  readonly #bytes: Uint8Array
  readonly #directory: PassthroughShared | undefined
  readonly #manner: Manner | undefined

  constructor(inner: Handlers, { log, directory, manner }: RecordingData) {
    this.#inner = inner
    this.#words = new Int32Array(log)
    this.#bytes = new Uint8Array(log)
    this.#directory = directory
    this.#manner = manner
  }

  #append(kind: number, opcode: number, node: number, value: number): number {
    const at = Head.WORDS + Atomics.add(this.#words, Head.RECORDS, 1) * Word.WORDS
    if (at + Word.WORDS > this.#words.length) throw new Error('the recording is full')
    const words = this.#words
    words[at + Word.OPCODE] = opcode
    words[at + Word.NODE] = node | 0
    words[at + Word.NODE + 1] = Math.floor(node / 2 ** 32)
    words[at + Word.VALUE] = value | 0
    words[at + Word.VALUE + 1] = Math.floor(value / 2 ** 32)
    Atomics.store(words, at + Word.KIND, kind)
    return at
  }

  #begin(request: DeviceRequest): number {
    const words = this.#words
    const at = this.#append(Kind.REQUEST, request.opcode, request.nodeid, 0)
    words[at + Word.RESULT] = UNFINISHED
    words[at + Word.UNIQUE] = request.uniqueLow
    words[at + Word.UNIQUE + 1] = request.uniqueHigh
    words[at + Word.PID] = request.pid
    words[at + Word.UID] = request.uid
    words[at + Word.RUNNING] = Atomics.add(words, Head.RUNNING, 1)
    const row = opcodeRow(request.opcode)
    const init = request.opcode === Op.INIT
    if (init || (row && row.names > 0)) {
      const skip = init ? 0 : row!.inBytes
      const start = request.argsAt + skip
      const most = Math.min(NAME_ROOM, request.argsBytes - skip)
      let length = 0
      while (length < most && (init || request.args.getUint8(start + length) !== 0)) length++
      for (let i = 0; i < length; i++) this.#bytes[(at + Word.NAME) * 4 + i] = request.args.getUint8(start + i)
      words[at + Word.NAME_BYTES] = length
    }
    return at
  }

  /** The record of a request that another thread refused to execute. */
  #resume(request: DeviceRequest): number {
    const words = this.#words
    const last = Atomics.load(words, Head.RECORDS) - 1
    for (let i = last; i >= Math.max(0, last - LOOK_BACK); i--) {
      const at = Head.WORDS + i * Word.WORDS
      if (words[at + Word.KIND] === Kind.REQUEST && words[at + Word.RESULT] === UNFINISHED
        && words[at + Word.UNIQUE] === (request.uniqueLow | 0) && words[at + Word.UNIQUE + 1] === (request.uniqueHigh | 0)) return at
    }
    return -1
  }

  handle(request: DeviceRequest): number {
    const { opcode } = request
    if (opcode === Op.FORGET || opcode === Op.BATCH_FORGET) {
      this.#forget(request)
      return this.#inner.handle(request)
    }
    let at = request.mayBlock ? this.#resume(request) : -1
    if (at < 0) at = this.#begin(request)
    if (opcode === Op.DESTROY) this.#remain()
    const result = this.#inner.handle(request)
    if (result === MAY_BLOCK) return result
    if (result !== DROPPED) this.#words[at + Word.RESULT] = result
    if (result >= FuseEntryOut.SIZE && GIVES_ENTRY.includes(opcode)) {
      const node = getU64(request.reply, request.replyAt + FuseEntryOut.nodeid)
      this.#words[at + Word.VALUE] = node | 0
      this.#words[at + Word.VALUE + 1] = Math.floor(node / 2 ** 32)
      this.#given(opcode, node)
      this.#limit(request.reply, request.replyAt)
    } else if (result > 0 && opcode === Op.READDIRPLUS) {
      this.#givenByList(request, result)
    } else if (result >= FuseAttrOut.SIZE && (opcode === Op.GETATTR || opcode === Op.SETATTR)) {
      this.#limitAttributes(request.reply, request.replyAt)
    } else if (result > 0 && opcode === Op.INIT) {
      this.#limitInit(request.reply, request.replyAt)
    }
    if (result > 0 && (opcode === Op.OPEN || opcode === Op.CREATE)) this.#limitOpen(request.reply, request.replyAt + (opcode === Op.CREATE ? FuseEntryOut.SIZE : 0))
    Atomics.sub(this.#words, Head.RUNNING, 1)
    return result
  }

  #given(opcode: number, node: number): void {
    if (node !== 0) this.#append(Kind.GIVEN, opcode, node, 1)
  }

  /** How long a fuse_entry_out is valid. */
  #limit(reply: DataView, at: number): void {
    if (!this.#manner) return
    for (const field of [FuseEntryOut.entry_valid, FuseEntryOut.attr_valid]) reply.setBigUint64(at + field, 0n, true)
    for (const field of [FuseEntryOut.entry_valid_nsec, FuseEntryOut.attr_valid_nsec]) reply.setUint32(at + field, this.#manner.validMs * 1e6, true)
  }

  #limitInit(reply: DataView, at: number): void {
    if (!this.#manner) return
    const { initFlags: [low, high] } = this.#manner
    reply.setUint32(at + FuseInitOut.flags, reply.getUint32(at + FuseInitOut.flags, true) & low, true)
    reply.setUint32(at + FuseInitOut.flags2, reply.getUint32(at + FuseInitOut.flags2, true) & high, true)
  }

  #limitOpen(reply: DataView, at: number): void {
    if (this.#manner) reply.setUint32(at + FuseOpenOut.open_flags, 0, true)
  }

  #limitAttributes(reply: DataView, at: number): void {
    if (!this.#manner) return
    reply.setBigUint64(at + FuseAttrOut.attr_valid, 0n, true)
    reply.setUint32(at + FuseAttrOut.attr_valid_nsec, this.#manner.validMs * 1e6, true)
  }

  #givenByList({ reply, replyAt }: DeviceRequest, length: number): void {
    for (let at = replyAt; at + FuseDirentplus.SIZE <= replyAt + length;) {
      const nameBytes = reply.getUint32(at + FuseEntryOut.SIZE + FuseDirent.namelen, true)
      this.#given(Op.READDIRPLUS, getU64(reply, at + FuseEntryOut.nodeid))
      this.#limit(reply, at)
      at += direntSize(FuseDirentplus.SIZE, nameBytes)
    }
  }

  #forget({ opcode, nodeid, args, argsAt }: DeviceRequest): void {
    if (opcode === Op.FORGET) {
      this.#append(Kind.FORGOTTEN, opcode, nodeid, getU64(args, argsAt + FuseForgetIn.nlookup))
      return
    }
    const count = args.getUint32(argsAt + FuseBatchForgetIn.count, true)
    for (let i = 0, at = argsAt + FuseBatchForgetIn.SIZE; i < count; i++, at += FuseForgetOne.SIZE) {
      this.#append(Kind.FORGOTTEN, opcode, getU64(args, at + FuseForgetOne.nodeid), getU64(args, at + FuseForgetOne.nlookup))
    }
  }

  #remain(): void {
    const shared = this.#directory
    if (!shared) return
    const words = new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer)
    const table = new InodeTable(words, shared.address, shared.layout)
    for (let index = ROOT_INDEX + 1; index <= words[TableHead.INODE_TOP]!; index++) {
      const node = table.nodeid(index)
      const lookups = table.lookups(node)
      if (lookups > 0) this.#append(Kind.REMAINED, Op.DESTROY, node, lookups)
    }
  }

  close(): void {
    this.#inner.close()
  }
}

/** Entry for the threads of a device. */
export async function createHandlers(data: unknown, host: DeviceHost): Promise<Handlers> {
  const recording = data as RecordingData
  const module = await import(recording.module) as HandlersModule
  return new Recorder(await module.createHandlers(recording.data, host), recording)
}
