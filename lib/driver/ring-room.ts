/**
 * Which request rings have room, in memory that all workers see. A worker whose own ring is full
 * leaves requests to the others as long as one of them has room.
 *
 * Nobody has to be woken for it: the last worker whose ring fills up is awake then, sees that all
 * are full, and goes on reading; one whose ring gets room again does that by itself.
 */
const ROOM = 0
const FULL = 1

export function allocateRingRoom(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * workers)
}

export class RingRoom {
  readonly #words: Int32Array
  readonly #index: number

  /** @param index of this worker */
  constructor(shared: SharedArrayBuffer, index: number) {
    this.#words = new Int32Array(shared)
    this.#index = index
  }

  /** Tells the others about the own ring. Called for every request: it stores only what is new. */
  tell(room: boolean): void {
    const word = room ? ROOM : FULL
    if (this.#words[this.#index] !== word) Atomics.store(this.#words, this.#index, word)
  }

  /** Whether another worker can take a request to the device. */
  elsewhere(): boolean {
    for (let i = 0; i < this.#words.length; i++) if (i !== this.#index && Atomics.load(this.#words, i) === ROOM) return true
    return false
  }
}
