/**
 * What a device was asked, written down by the device's own threads into memory that the test
 * reads: requests in the order of their execution with their results, and the lookups that replies
 * gave out, that FORGETs took back, and that were left when DESTROY came.
 */
import { errnoName } from '../../lib/errors.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import type { HandlersSource } from '../../lib/driver/emulated-transport.js'
import type { PassthroughShared } from '../../lib/device/passthrough/shared.js'

/** Words before the records: how many there are, and how many requests are being executed. */
export const Head = { RECORDS: 0, RUNNING: 1, WORDS: 4 } as const
/** Words of a record; 64-bit values are two. */
export const Word = { KIND: 0, OPCODE: 1, RESULT: 2, UNIQUE: 3, NODE: 5, VALUE: 7, RUNNING: 9, NAME_BYTES: 10, PID: 11, UID: 12, NAME: 13, WORDS: 23 } as const
export const NAME_ROOM = (Word.WORDS - Word.NAME) * 4
export const Kind = { REQUEST: 1, GIVEN: 2, FORGOTTEN: 3, REMAINED: 4 } as const
/** The result of a request that is being executed. */
export const UNFINISHED = 0x7fff_ffff

export interface RecordedRequest {
  op: string
  node: number
  name: string
  /** Name of the errno, or ''. */
  error: string
  /** The node that a good reply names first, or 0. */
  entry: number
  /** INIT: its arguments, as many as fit. */
  args: Buffer
  unique: bigint
  /** Of the caller, 0 when the kernel asks on its own. */
  pid: number
  /** −1 when the kernel keeps it to itself (ALLOW_IDMAP). */
  uid: number
  /** Other requests in execution when this one came. */
  running: number
}

/** Lookups by node id. */
export type Lookups = Map<number, number>

/** What `recording-handlers` starts with. */
export interface RecordingData {
  log: SharedArrayBuffer
  /** The handlers behind. */
  module: string
  data: unknown
  /** The table of a shared directory, to be asked what DESTROY will release. */
  directory: PassthroughShared | undefined
  manner: Manner | undefined
}

/** What is changed in the replies of the handlers behind, so that they have the manners of another device; files are opened with no flags. */
export interface Manner {
  /** How long the kernel may believe names and attributes, in milliseconds. */
  validMs: number
  /** Flags of INIT that the device may accept. */
  initFlags: readonly [low: number, high: number]
}
export class Recording {
  readonly log: SharedArrayBuffer
  readonly #words: Int32Array

  constructor(records = 200_000) {
    this.log = new SharedArrayBuffer((Head.WORDS + records * Word.WORDS) * 4)
    this.#words = new Int32Array(this.log)
  }

  /** Puts the recorder before other handlers. */
  wrap(inner: HandlersSource, directory?: PassthroughShared, manner?: Manner): HandlersSource {
    const data: RecordingData = { log: this.log, module: inner.module, data: inner.data, directory, manner }
    return { ...inner, module: new URL('./recording-handlers.js', import.meta.url).href, data }
  }

  /** How many records there are now: a place to go on from. */
  get length(): number {
    return Atomics.load(this.#words, Head.RECORDS)
  }

  #u64(at: number): number {
    return (this.#words[at + 1]! >>> 0) * 2 ** 32 + (this.#words[at]! >>> 0)
  }

  *#records(kind: number, from = 0): Generator<number> {
    for (let i = from; i < this.length; i++) {
      const at = Head.WORDS + i * Word.WORDS
      if (at + Word.WORDS > this.#words.length) throw new Error('the recording is full')
      if (this.#words[at + Word.KIND] === kind) yield at
    }
  }

  #request(at: number): RecordedRequest {
    const result = this.#words[at + Word.RESULT]!
    const text = Buffer.from(this.log, (at + Word.NAME) * 4, this.#words[at + Word.NAME_BYTES]!)
    const init = this.#words[at + Word.OPCODE] === Op.INIT
    return {
      op: opcodeName(this.#words[at + Word.OPCODE]!), node: this.#u64(at + Word.NODE), name: init ? '' : text.toString(), args: text,
      error: result < 0 ? errnoName(-result) : '', entry: this.#u64(at + Word.VALUE), unique: BigInt(this.#u64(at + Word.UNIQUE)), running: this.#words[at + Word.RUNNING]!, pid: this.#words[at + Word.PID]!, uid: this.#words[at + Word.UID]!,
    }
  }

  /** Requests that wait for an answer, in order. @param from a former `length` */
  requests(from = 0): RecordedRequest[] {
    return [...this.#records(Kind.REQUEST, from)].map(at => this.#request(at))
  }

  /** Whether every request has been executed. */
  get finished(): boolean {
    return Atomics.load(this.#words, Head.RUNNING) === 0
  }

  /** FORGETs, one per node however they came, in order: [node, lookups]. */
  forgets(from = 0): [node: number, lookups: number][] {
    return [...this.#records(Kind.FORGOTTEN, from)].map(at => [this.#u64(at + Word.NODE), this.#u64(at + Word.VALUE)])
  }

  /** Requests, and between them the nodes of which replies gave lookups. */
  *exchange(from = 0): Generator<RecordedRequest | number> {
    for (let i = from; i < this.length; i++) {
      const at = Head.WORDS + i * Word.WORDS
      if (this.#words[at + Word.KIND] === Kind.REQUEST) yield this.#request(at)
      else if (this.#words[at + Word.KIND] === Kind.GIVEN) yield this.#u64(at + Word.NODE)
    }
  }

  #sum(kind: number): Lookups {
    const sums: Lookups = new Map()
    for (const at of this.#records(kind)) {
      const node = this.#u64(at + Word.NODE)
      sums.set(node, (sums.get(node) ?? 0) + this.#u64(at + Word.VALUE))
    }
    return sums
  }

  /** Lookups that replies gave out. */
  get given(): Lookups {
    return this.#sum(Kind.GIVEN)
  }

  get forgotten(): Lookups {
    return this.#sum(Kind.FORGOTTEN)
  }

  /** Lookups that the device's own books had when DESTROY came: what DESTROY releases. */
  get remained(): Lookups {
    return this.#sum(Kind.REMAINED)
  }

  /**
   * The account of lookups, which must be even for each node: given = forgotten + remained.
   * @returns totals, and the nodes where it is not
   */
  account(): { given: number, forgotten: number, remained: number, wrong: string[] } {
    const [given, forgotten, remained] = [this.given, this.forgotten, this.remained]
    const total = (sums: Lookups): number => [...sums.values()].reduce((sum, n) => sum + n, 0)
    const wrong = [...new Set([...given.keys(), ...forgotten.keys(), ...remained.keys()])]
      .map(node => ({ node, given: given.get(node) ?? 0, forgotten: forgotten.get(node) ?? 0, remained: remained.get(node) ?? 0 }))
      .filter(of => of.given !== of.forgotten + of.remained)
      .map(of => `node ${of.node}: ${of.given} given, ${of.forgotten} forgotten, ${of.remained} remained`)
    return { given: total(given), forgotten: total(forgotten), remained: total(remained), wrong }
  }
}

/** Opcodes whose good reply begins with fuse_entry_out. */
export const GIVES_ENTRY: readonly number[] = [Op.LOOKUP, Op.MKNOD, Op.MKDIR, Op.SYMLINK, Op.LINK, Op.CREATE, Op.TMPFILE]
