/**
 * Replies and notes as they come from the far end. A header is looked at where it was read; the rest
 * goes where the chain of its request wants it, by the read itself as far as it has not come yet.
 *
 * The far end is not trusted: a reply is of a request in flight, is no longer than its chain has room
 * for, and has an errno or a body. What breaks that, or the end of the stream, is the end of the link
 * (`broken`): nothing is read any more. Belongs to the near end's thread.
 */
import { errno } from '../errors.js'
import { FuseInHeader, FuseInitOut, FuseOutHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { Region } from '../sys/memory.js'
import { RelayNote } from './attribute-notes.js'
import type { NearAnswers } from './near-answers.js'
import { NONE, type NearRequests } from './near-requests.js'
import { isRead } from './request-effects.js'
import { MAX_PLACES, StreamReader } from './stream-reader.js'

/** Errors beyond this are no errno numbers. */
const ERROR_LIMIT = 512
/** Replies that are given to the driver at a time. */
const BATCH = 16

export class NearReceiver {
  /** What the far end did wrong, or how its stream ended; '' while it is sound. */
  broken = ''
  readonly #reader: StreamReader
  readonly #requests: NearRequests
  readonly #answers: NearAnswers
  /** The entry whose reply is being read. */
  #reading = NONE
  #replyBytes = 0
  #replyError = 0

  /** @param inFd not blocking; the caller's */
  constructor(inFd: number, region: Region, requests: NearRequests, answers: NearAnswers) {
    this.#reader = new StreamReader(inFd, region)
    this.#requests = requests
    this.#answers = answers
  }

  /** Reads replies until there are no more now, or enough to tell the driver of. @returns how many */
  receive(): number {
    let count = 0
    for (;;) {
      while (count < BATCH && this.broken === '' && this.#advance()) count++
      if (this.broken !== '' || count === BATCH) return count
      const read = this.#reader.fill()
      if (read > 0) continue
      if (read === -errno.EAGAIN) return count
      this.#ended(read)
      return count
    }
  }

  #ended(error: number): void {
    const reader = this.#reader
    const missing = reader.left > 0 || reader.buffered > 0
    const part = reader.left > 0 ? `${this.#replyBytes - reader.left} of ${this.#replyBytes} bytes` : `${reader.buffered} bytes`
    this.broken = missing ? `the stream of the far end was cut in the middle of a message (${part})` : error < 0 ? `the stream of the far end failed (errno ${-error})` : 'the far end closed its stream'
  }

  /** Goes on with the reply that is being read. @returns whether one was completed */
  #advance(): boolean {
    const reader = this.#reader
    if (this.#reading === NONE) {
      if (reader.buffered < FuseOutHeader.SIZE) return false
      if (reader.view.getUint32(reader.at + FuseOutHeader.unique, true) === 0 && reader.view.getUint32(reader.at + FuseOutHeader.unique + 4, true) === 0) return this.#noted()
      this.#begin()
      if (this.broken !== '') return false
    }
    if (!reader.settle()) return false
    const entry = this.#reading
    this.#reading = NONE
    this.#complete(entry)
    return true
  }

  #complete(entry: number): void {
    const requests = this.#requests
    if (entry >= requests.ownFrom) {
      requests.ownEnded(entry)
      this.#answers.ahead.answered(entry - requests.ownFrom, this.#replyError, this.#replyBytes - FuseOutHeader.SIZE)
      return
    }
    const opcode = requests.opcode[entry]!
    if (opcode === Op.INIT) this.#initAnswered(entry)
    else if (isRead(opcode)) this.#answers.read(requests.requestAt(entry) + FuseInHeader.nodeid)
    requests.giveBack(entry, this.#replyBytes)
  }

  #initAnswered(entry: number): void {
    if (this.#replyError !== 0 || this.#replyBytes < FuseOutHeader.SIZE + FuseInitOut.flags + 4) return
    this.#answers.initAnswered(this.#requests.replyAt(entry) + FuseOutHeader.SIZE)
  }

  /** A note comes. @returns whether it has come as a whole */
  #noted(): boolean {
    const { view, bytes, at, buffered } = this.#reader
    const length = view.getUint32(at + RelayNote.len, true)
    if (length !== RelayNote.SIZE) {
      this.#bad('len', length, `${RelayNote.SIZE} with unique 0`)
      return false
    }
    if (buffered < RelayNote.SIZE) return false
    const entry = this.#requests.findSent(view.getUint32(at + RelayNote.cause, true), view.getUint32(at + RelayNote.cause + 4, true))
    if (entry !== NONE) this.#answers.notes.keep(view, bytes, at, this.#requests.alone[entry]!)
    this.#reader.skip(RelayNote.SIZE)
    return true
  }

  /** A header has come: finds its request and says where the rest goes. */
  #begin(): void {
    const { view, at } = this.#reader
    const requests = this.#requests
    const { ahead } = this.#answers
    const length = view.getUint32(at + FuseOutHeader.len, true)
    const error = view.getInt32(at + FuseOutHeader.error, true)
    const low = view.getUint32(at + FuseOutHeader.unique, true)
    const high = view.getUint32(at + FuseOutHeader.unique + 4, true)
    const entry = requests.findSent(low, high)
    if (entry === NONE) return this.#bad('unique', `0x${high.toString(16)}:${low.toString(16)}`, 'that of a request in flight')
    const own = entry >= requests.ownFrom
    const room = own ? FuseOutHeader.SIZE + ahead.room(entry - requests.ownFrom) : requests.writableBytes[entry]!
    if (length < FuseOutHeader.SIZE || length > room) return this.#bad('len', length, `${FuseOutHeader.SIZE} to ${room}`)
    if (error > 0 || error <= -ERROR_LIMIT) return this.#bad('error', error, `more than ${-ERROR_LIMIT} and at most 0`)
    if (error < 0 && length !== FuseOutHeader.SIZE) return this.#bad('len', length, `${FuseOutHeader.SIZE} with error ${error}`)
    this.#reader.skip(FuseOutHeader.SIZE)
    this.#reading = entry
    this.#replyBytes = length
    this.#replyError = error
    if (own) return this.#reader.place(ahead.placeOf(entry - requests.ownFrom), length - FuseOutHeader.SIZE, ahead.memory)
    requests.writeHeader(entry, length, error)
    this.#place(entry, length)
  }

  /** Says where the body of a reply goes. */
  #place(entry: number, length: number): void {
    const { addresses, lengths, readable } = this.#requests
    let left = length - FuseOutHeader.SIZE
    let skip: number = FuseOutHeader.SIZE
    for (let i = entry * MAX_PLACES + readable[entry]!; left > 0; i++, skip = 0) {
      const part = Math.min(lengths[i]! - skip, left)
      this.#reader.place(addresses[i]! + skip, part)
      left -= part
    }
  }

  #bad(field: string, got: unknown, expected: string): void {
    this.broken = `the far end broke the protocol: fuse_out_header.${field} is ${String(got)}, expected ${expected}`
  }

  close(): void {
    this.#reader.close()
  }
}
