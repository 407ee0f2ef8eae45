/**
 * The way of FORGETs and INTERRUPTs from the workers that do not own the hiprio queue to worker 0,
 * which does: one single-producer, single-consumer ring per worker in memory both threads see.
 *
 * Any clone of /dev/fuse may deliver them. A full ring keeps them in order on the producer's side
 * and the consumer wakes it when there is room again.
 */
import { signalEventfd } from '../sys/io.js'
import type { HiprioSink } from './hiprio-queue.js'
import { PairFifo } from './pair-fifo.js'

const ENTRIES = 1024
const ENTRY_WORDS = 5
/** Word 0: entries taken, 1: entries put, 2: the producer waits for room. */
const TAKEN = 0
const PUT = 1
const WAITING = 2
const HEAD_WORDS = 4
const KIND_FORGET = 0
const KIND_INTERRUPT = 1

export function allocateRelay(): SharedArrayBuffer {
  return new SharedArrayBuffer((HEAD_WORDS + ENTRIES * ENTRY_WORDS) * 4)
}

/** The producer's end, on workers 1 and up. */
export class HiprioRelay implements HiprioSink {
  readonly #words: Int32Array
  readonly #asleep: Int32Array
  readonly #consumerWakeFd: number
  readonly #forgets = new PairFifo()
  readonly #interrupts = new PairFifo()
  readonly #pair = new DataView(new ArrayBuffer(16))

  /** @param sleepFlags of the workers; the consumer is worker 0 */
  constructor(shared: SharedArrayBuffer, sleepFlags: SharedArrayBuffer, consumerWakeFd: number) {
    this.#words = new Int32Array(shared)
    this.#asleep = new Int32Array(sleepFlags)
    this.#consumerWakeFd = consumerWakeFd
  }

  forget(nodeidLow: number, nodeidHigh: number, nlookupLow: number, nlookupHigh: number): void {
    this.#forgets.push(nodeidLow, nodeidHigh, nlookupLow, nlookupHigh)
  }

  interrupt(uniqueLow: number, uniqueHigh: number): void {
    this.#interrupts.push(uniqueLow, uniqueHigh, 0, 0)
  }

  flush(): void {
    if (this.#forgets.length === 0 && this.#interrupts.length === 0) return
    let moved = this.#moveAll()
    if (this.#forgets.length > 0 || this.#interrupts.length > 0) {
      Atomics.store(this.#words, WAITING, 1)
      // the consumer may have made room, and looked at the word, just before it was stored
      moved += this.#moveAll()
    }
    if (moved > 0 && Atomics.load(this.#asleep, 0) === 1) signalEventfd(this.#consumerWakeFd)
  }

  #moveAll(): number {
    return this.#move(this.#interrupts, KIND_INTERRUPT) + this.#move(this.#forgets, KIND_FORGET)
  }

  #move(fifo: PairFifo, kind: number): number {
    let put = this.#words[PUT]!
    let moved = 0
    while (fifo.length > 0 && ((put - Atomics.load(this.#words, TAKEN)) | 0) < ENTRIES) {
      fifo.shiftTo(this.#pair, 0)
      const at = HEAD_WORDS + (put & (ENTRIES - 1)) * ENTRY_WORDS
      this.#words[at] = kind
      for (let i = 0; i < 4; i++) this.#words[at + 1 + i] = this.#pair.getInt32(i * 4, true)
      put = (put + 1) | 0
      Atomics.store(this.#words, PUT, put)
      moved++
    }
    return moved
  }
}

/** The consumer's end, on worker 0. */
export class HiprioRelayDrain {
  readonly #words: Int32Array
  readonly #producerWakeFd: number

  constructor(shared: SharedArrayBuffer, producerWakeFd: number) {
    this.#words = new Int32Array(shared)
    this.#producerWakeFd = producerWakeFd
  }

  hasSome(): boolean {
    return Atomics.load(this.#words, PUT) !== this.#words[TAKEN]
  }

  /** Hands everything to the queue; the caller flushes it. @returns how many */
  drainTo(sink: HiprioSink): number {
    let taken = this.#words[TAKEN]!
    let count = 0
    while (taken !== Atomics.load(this.#words, PUT)) {
      const at = HEAD_WORDS + (taken & (ENTRIES - 1)) * ENTRY_WORDS
      const words = this.#words
      if (words[at] === KIND_FORGET) sink.forget(words[at + 1]! >>> 0, words[at + 2]! >>> 0, words[at + 3]! >>> 0, words[at + 4]! >>> 0)
      else sink.interrupt(words[at + 1]! >>> 0, words[at + 2]! >>> 0)
      taken = (taken + 1) | 0
      Atomics.store(this.#words, TAKEN, taken)
      count++
    }
    if (count > 0 && Atomics.exchange(this.#words, WAITING, 0) === 1) signalEventfd(this.#producerWakeFd)
    return count
  }
}
