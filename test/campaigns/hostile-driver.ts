/**
 * A hostile driver before the emulated device that serves a directory: chains with loops, outside
 * the memory, in the wrong direction and of 4 GiB; requests cut short, with lengths, node ids and
 * handles that were never given, and with names that lead elsewhere.
 *
 * After each chain the device has answered once, or the queue is broken. Nothing is written behind
 * the buffers of a chain, and nothing beside the shared directory is seen or changed.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EmulatedQueue } from '../../lib/device/emulated-queue.js'
import { allocateInterrupts } from '../../lib/device/interrupts.js'
import { defaultOptions } from '../../lib/device/passthrough/options.js'
import { Passthrough } from '../../lib/device/passthrough/passthrough.js'
import { closePassthrough, openPassthrough, type PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { FuseAttr, FuseEntryOut, FuseInHeader, FuseMknodIn, FuseOpenOut, FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op, opcodeName, opcodeRow, opcodeRows } from '../../lib/fuse/opcodes.js'
import { mapAnonymous, rewindScratch, scratchMark, unmap, viewRegion, type Region } from '../../lib/sys/memory.js'
import { layoutRing, VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VirtqDesc, type RingLayout } from '../../lib/virtio/split-ring.js'
import { SeededRandom } from '../support/seeded-random.js'

const QUEUE_SIZE = 16
const REGION_BYTES = 1 << 20
const TABLE_AT = 16384
const DATA_AT = 32768
const GAP = 16
const GUARD = 0xc3
const CHAINS = 1500
const SECRET = 'what lies beside the shared directory'
const NAMES = ['a', 'b', 'd', 'e', 'f', 'l', 'new', '..', '.', '', '../secret', 'd/../../secret', '/', 'a/', '/etc/passwd', 'x'.repeat(255), 'x'.repeat(256), '\xff\xfe', 'user.a', 'security.capability']
/** These take everything away that was given out. */
const ENDINGS: number[] = [Op.INIT, Op.DESTROY, Op.FORGET, Op.BATCH_FORGET]
// SETLKW waits as long as another lock is held, which is for ever where one thread does everything
const OPCODES = opcodeRows.map(row => row.opcode).filter(opcode => ![Op.SETLKW, ...ENDINGS].includes(opcode))
/** What works with a handle, which takes luck to have. */
const WITH_HANDLE = [Op.READ, Op.WRITE, Op.READDIR, Op.READDIRPLUS, Op.FSYNC, Op.LSEEK, Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.SETLK, Op.OPEN, Op.CREATE, Op.LOOKUP]
const GIVES_ENTRY: readonly number[] = [Op.LOOKUP, Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.CREATE, Op.TMPFILE]
const WORDS = [0, 1, 2, 3, 16, 40, 255, 4095, 4096, 4097, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff]

export interface DriverReport {
  /** Chains that no good driver makes. */
  mutated: number
  chains: number
  runs: number
  /** Queues that were broken. */
  broken: number
  /** Requests that were done. */
  good: number
}

/** The place: a small file system of its own, so that nobody else's disk fills up, with something beside the shared directory. */
export class HostilePlace {
  readonly base = mkdtempSync(join(tmpdir(), 'vfb-hostile-'))
  readonly root = join(this.base, 'shared')
  readonly #inodes = new Set<bigint>()

  /** @throws Error when no tmpfs can be mounted */
  constructor() {
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m,nr_inodes=4000', 'tmpfs', this.base])
    if (status !== 0) {
      rmSync(this.base, { recursive: true })
      throw new Error(`no tmpfs: ${stderr.toString().trim()}`)
    }
    mkdirSync(this.root)
    writeFileSync(join(this.base, 'secret'), SECRET)
    mkdirSync(join(this.base, 'beside'))
    for (const name of ['secret', 'beside', '.']) this.#inodes.add(BigInt(statSync(join(this.base, name)).ino))
  }

  /** An empty tree again. */
  fill(): void {
    removeAll(Buffer.from(this.root))
    mkdirSync(join(this.root, 'd'))
    for (const name of ['a', 'b', 'd/e']) writeFileSync(join(this.root, name), name.repeat(500))
  }

  /** @throws Error when something outside was changed */
  check(): void {
    const names = readdirSync(this.base).sort().join()
    if (names !== 'beside,secret,shared' || readdirSync(join(this.base, 'beside')).length > 0 || readFileSync(join(this.base, 'secret'), 'latin1') !== SECRET) {
      throw new Error(`something beside the shared directory has changed: ${names}`)
    }
  }

  isOutside(ino: bigint): boolean {
    return this.#inodes.has(ino)
  }

  close(): void {
    spawnSync('umount', ['-l', this.base])
    rmSync(this.base, { recursive: true, force: true })
  }
}

/** Removes what is in a directory: names need not be text. */
function removeAll(directory: Buffer): void {
  for (const entry of readdirSync(directory, { withFileTypes: true, encoding: 'buffer' })) {
    const path = Buffer.concat([directory, Buffer.from('/'), entry.name])
    if (entry.isDirectory()) {
      removeAll(path)
      rmdirSync(path)
    } else {
      unlinkSync(path)
    }
  }
}

interface Piece { at: number, length: number, writable: boolean }

export class HostileDriver {
  readonly report: DriverReport
  readonly #random: SeededRandom
  readonly #place: HostilePlace
  readonly #region: Region
  readonly #layout: RingLayout
  readonly #shared: PassthroughShared
  readonly #handlers: Passthrough
  readonly #queue: EmulatedQueue
  readonly #nodes: bigint[] = [1n, 1n, 0n, 0xffff_ffff_ffff_ffffn]
  readonly #handles: bigint[] = [0n, 0xffff_ffff_ffff_ffffn]
  #availIdx = 0
  #usedIdx = 0
  #unique = 0

  private constructor(seed: number, place: HostilePlace, report: DriverReport) {
    this.#random = new SeededRandom(seed)
    this.#place = place
    this.report = report
    this.#region = viewRegion(mapAnonymous(REGION_BYTES), REGION_BYTES)
    this.#layout = layoutRing(QUEUE_SIZE, 0)
    const random = this.#random
    this.#shared = openPassthrough({
      ...defaultOptions, root: place.root, readonly: random.below(5) === 0, posixAcl: random.below(3) === 0, writeback: random.below(3) === 0,
      maxSize: random.below(3) === 0 ? 1 << 20 : Infinity, hide: random.below(4) === 0 ? ['b'] : [],
    }, { inodes: 5000, cachedDescriptors: 64 })
    this.#handlers = new Passthrough(this.#shared)
    this.#queue = new EmulatedQueue(this.#region, this.#layout, { indirectDesc: true, eventIdx: random.below(2) === 0 }, this.#handlers, allocateInterrupts())
  }

  /** One queue, until it is broken or has done enough. @throws Error for a finding */
  static run(seed: number, place: HostilePlace, report: DriverReport): void {
    const mark = scratchMark()
    place.fill()
    const driver = new HostileDriver(seed, place, report)
    try {
      driver.#init()
      for (let i = 0; i < CHAINS && driver.#queue.broken === ''; i++) driver.#chain()
      if (driver.#queue.broken !== '') report.broken++
      place.check()
    } finally {
      driver.#queue.close()
      driver.#handlers.close()
      closePassthrough(driver.#shared)
      unmap(driver.#region.address, REGION_BYTES)
      rewindScratch(mark)
    }
    report.runs++
  }

  #init(): void {
    const body = Buffer.alloc(64)
    body.writeUInt32LE(7, 0)
    body.writeUInt32LE(45, 4)
    body.writeUInt32LE(0x7fff_ffff, 12)
    this.#offer(this.#request(Op.INIT, body), [64 + FuseInHeader.SIZE], [96])
  }

  #word(): number {
    const random = this.#random
    return random.below(3) === 0 ? random.below(2 ** 32) : WORDS[random.below(WORDS.length)]!
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)]!
  }

  #request(opcode: number, body: Uint8Array): Buffer {
    const bytes = Buffer.concat([Buffer.alloc(FuseInHeader.SIZE), body])
    bytes.writeUInt32LE(bytes.length, FuseInHeader.len)
    bytes.writeUInt32LE(opcode, FuseInHeader.opcode)
    bytes.writeUInt32LE(this.#unique += 2, FuseInHeader.unique)
    bytes.writeBigUInt64LE(this.#pick(this.#nodes), FuseInHeader.nodeid)
    return bytes
  }

  /** A request that may be anything from nearly right to noise. */
  #message(): Buffer {
    const random = this.#random
    const opcode = random.below(60) === 0 ? random.below(5000) : random.below(200) === 0 ? this.#pick(ENDINGS) : this.#pick(random.below(2) === 0 ? WITH_HANDLE : OPCODES)
    const row = opcodeRow(opcode)
    const args = Buffer.alloc(row?.inBytes ?? random.below(100))
    for (let at = 0; at + 4 <= args.length; at += 4) if (random.below(6) === 0) args.writeUInt32LE(this.#word(), at)
    // a handle or a node id stands first in most of them
    if (args.length >= 8 && random.below(2) === 0) args.writeBigUInt64LE(this.#pick(random.below(2) === 0 ? this.#handles : this.#nodes), 0)
    const names: Buffer[] = []
    for (let i = row?.names ?? 0; i > 0; i--) names.push(Buffer.from(this.#pick(NAMES), 'latin1'), Buffer.alloc(random.below(20) === 0 ? 0 : 1))
    if (opcode === Op.WRITE || opcode === Op.SETXATTR || opcode === Op.BATCH_FORGET || random.below(20) === 0) names.push(Buffer.alloc(random.below(600), 0x41))
    // no device node that leads anywhere
    if (opcode === Op.MKNOD) args.writeUInt32LE(0, FuseMknodIn.rdev)
    const bytes = this.#request(opcode, Buffer.concat([args, ...names]))
    if (random.below(25) === 0) bytes.writeUInt32LE(this.#word(), FuseInHeader.len)
    if (random.below(30) === 0) bytes.writeUInt16LE(random.below(0x10000), FuseInHeader.total_extlen)
    if (random.below(10) === 0) bytes.writeUInt32LE(this.#pick([0, 1000, 65534, 0xffff_ffff]), FuseInHeader.uid)
    if (opcode !== Op.MKNOD && random.below(8) === 0) bytes[FuseInHeader.SIZE + random.below(Math.max(1, bytes.length - FuseInHeader.SIZE))] = random.below(256)
    return random.below(25) === 0 ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes
  }

  /** Lengths that add up to `total`, most often one. */
  #cut(total: number): number[] {
    const lengths: number[] = []
    for (let left = total; left > 0;) {
      const part = lengths.length < 5 && this.#random.below(3) === 0 ? this.#random.between(1, left) : left
      lengths.push(part)
      left -= part
    }
    return lengths
  }

  #chain(): void {
    const random = this.#random
    const room = this.#pick([0, 8, 16, 40, 144, 160, 144, 160, 500, 4112, 4112, 4112, 20_000])
    const message = this.#message()
    this.#offer(message, this.#cut(message.length), room === 0 ? [] : this.#cut(room), random.below(150) === 0)
  }

  #descriptor(table: number, index: number, address: bigint, length: number, flags: number, next: number): void {
    const { view } = this.#region
    const at = table + index * VirtqDesc.SIZE
    view.setBigUint64(at + VirtqDesc.addr, BigInt.asUintN(64, address), true)
    view.setUint32(at + VirtqDesc.len, length, true)
    view.setUint16(at + VirtqDesc.flags, flags, true)
    view.setUint16(at + VirtqDesc.next, next, true)
  }

  /** Lays a chain out, with something wrong in it perhaps, and has it executed. */
  #offer(message: Buffer, readable: readonly number[], writable: readonly number[], wrong = false): void {
    const { view, bytes, address } = this.#region
    const { avail, desc, used } = this.#layout
    const lengths = [...readable, ...writable]
    const end = DATA_AT + GAP + lengths.reduce((sum, length) => sum + length + GAP, 0)
    bytes.fill(GUARD, DATA_AT, end)
    const pieces: Piece[] = []
    const indirect = this.#random.below(2) === 0
    const table = indirect ? TABLE_AT : desc
    let at = DATA_AT + GAP
    let done = 0
    lengths.forEach((length, i) => {
      const isWritable = i >= readable.length
      if (!isWritable) {
        bytes.set(message.subarray(done, done + length), at)
        done += length
      }
      this.#descriptor(table, i, BigInt(address + at), length, (isWritable ? VIRTQ_DESC_F_WRITE : 0) | (i < lengths.length - 1 ? VIRTQ_DESC_F_NEXT : 0), i + 1)
      pieces.push({ at, length, writable: isWritable })
      at += length + GAP
    })
    if (lengths.length === 0) this.#descriptor(table, 0, BigInt(address + DATA_AT), 0, 0, 0)
    if (indirect) this.#descriptor(desc, 0, BigInt(address + TABLE_AT), VirtqDesc.SIZE * Math.max(1, lengths.length), VIRTQ_DESC_F_INDIRECT, 0)
    if (wrong) this.#spoil(table, Math.max(1, lengths.length), indirect)
    this.report.chains++
    if (wrong) this.report.mutated++
    view.setUint16(avail + 4 + 2 * (this.#availIdx & (QUEUE_SIZE - 1)), wrong && this.#random.below(10) === 0 ? this.#random.below(0x10000) : 0, true)
    this.#availIdx = (this.#availIdx + (wrong && this.#random.below(20) === 0 ? this.#random.between(1, 100) : 1)) & 0xffff
    view.setUint16(avail + 2, this.#availIdx, true)
    const what = message.length >= 8 ? opcodeName(message.readUInt32LE(FuseInHeader.opcode)) : `${message.length} bytes`
    this.#queue.process()
    const idx = view.getUint16(used + 2, true)
    if (this.#queue.broken !== '') return
    if (wrong) {
      // buffers may lie anywhere by now, on each other and on the ring
      if (idx === this.#usedIdx) throw new Error(`${what}: neither answered nor broken`)
      this.#usedIdx = idx
      return
    }
    if (idx !== ((this.#usedIdx + 1) & 0xffff)) throw new Error(`${what}: ${idx - this.#usedIdx} answers`)
    this.#usedIdx = idx
    const wrote = view.getUint32(used + 4 + 8 * ((idx - 1) & (QUEUE_SIZE - 1)) + 4, true)
    this.#checkReply(what, message, pieces, wrote, end)
  }

  /** Something that no driver may put into a descriptor. */
  #spoil(table: number, count: number, indirect: boolean): void {
    const random = this.#random
    const { view, address } = this.#region
    const at = (indirect && random.below(3) === 0 ? this.#layout.desc : table + random.below(count) * VirtqDesc.SIZE)
    switch (random.below(6)) {
      case 0: view.setUint16(at + VirtqDesc.next, random.below(2) === 0 ? random.below(count + 1) : random.below(0x10000), true); break
      case 1: view.setUint16(at + VirtqDesc.flags, random.below(8), true); break
      case 2: view.setUint32(at + VirtqDesc.len, this.#word(), true); break
      case 3: view.setBigUint64(at + VirtqDesc.addr, BigInt.asUintN(64, [BigInt(address) - 1n, BigInt(address + REGION_BYTES) - BigInt(random.below(3)), 0n, 1n << 63n, (1n << 64n) - 1n, BigInt(address + DATA_AT + random.below(REGION_BYTES - DATA_AT))][random.below(6)]!), true); break
      case 4:
        view.setUint16(at + VirtqDesc.flags, VIRTQ_DESC_F_NEXT, true)
        view.setUint16(at + VirtqDesc.next, 0, true)
        break
      case 5: view.setUint32(at + VirtqDesc.len, 0xffff_ffff, true); break
    }
  }

  #checkReply(what: string, message: Buffer, pieces: readonly Piece[], wrote: number, end: number): void {
    const { bytes } = this.#region
    let at = DATA_AT
    for (const piece of pieces) {
      for (let i = at; i < piece.at; i++) if (bytes[i] !== GUARD) throw new Error(`${what}: a byte before a buffer was written`)
      at = piece.at + piece.length
    }
    for (let i = at; i < end; i++) if (bytes[i] !== GUARD) throw new Error(`${what}: a byte behind the last buffer was written`)
    const reply = Buffer.concat(pieces.filter(piece => piece.writable).map(piece => bytes.subarray(piece.at, piece.at + piece.length)))
    if (wrote === 0) return void this.report.mutated++
    if (wrote > reply.length || wrote < FuseOutHeader.SIZE || reply.readUInt32LE(FuseOutHeader.len) !== wrote) throw new Error(`${what}: a reply of ${wrote} bytes for ${reply.length} of room`)
    if (message.length >= FuseInHeader.SIZE && reply.readBigUInt64LE(FuseOutHeader.unique) !== message.readBigUInt64LE(FuseInHeader.unique)) throw new Error(`${what}: another request's unique`)
    const error = reply.readInt32LE(FuseOutHeader.error)
    if (error > 0 || error <= -512 || (error !== 0 && wrote !== FuseOutHeader.SIZE)) throw new Error(`${what}: error ${error} in ${wrote} bytes`)
    if (error !== 0) return void this.report.mutated++
    this.report.good++
    if (reply.includes(SECRET)) throw new Error(`${what}: the secret is in the reply`)
    this.#learn(what, message.readUInt32LE(FuseInHeader.opcode), reply.subarray(FuseOutHeader.SIZE, wrote))
  }

  /** Node ids and handles that were given out, for later requests. */
  #learn(what: string, opcode: number, payload: Buffer): void {
    const entry = GIVES_ENTRY.includes(opcode) && payload.length >= FuseEntryOut.SIZE
    if (entry) {
      if (this.#place.isOutside(payload.readBigUInt64LE(FuseEntryOut.attr + FuseAttr.ino))) throw new Error(`${what} led out of the shared directory`)
      this.#nodes.push(payload.readBigUInt64LE(FuseEntryOut.nodeid))
    }
    if (opcode === Op.OPEN || opcode === Op.OPENDIR) this.#handles.push(payload.readBigUInt64LE(FuseOpenOut.fh))
    if (entry && (opcode === Op.CREATE || opcode === Op.TMPFILE)) this.#handles.push(payload.readBigUInt64LE(FuseEntryOut.SIZE + FuseOpenOut.fh))
    // the newest are the most likely to be there still
    if (this.#nodes.length > 24) this.#nodes.splice(4, 8)
    if (this.#handles.length > 24) this.#handles.splice(2, 8)
  }
}
