/** Slots in the order they came, for requests that wait for room on a ring. */
export class SlotFifo {
  length = 0
  readonly #slots: Int32Array
  #head = 0

  constructor(capacity: number) {
    this.#slots = new Int32Array(capacity)
  }

  /** The slot at a place, 0 being the oldest. */
  at(place: number): number {
    return this.#slots[(this.#head + place) % this.#slots.length]!
  }

  push(slot: number): void {
    this.#slots[(this.#head + this.length) % this.#slots.length] = slot
    this.length++
  }

  /** Puts one before the oldest. */
  pushFirst(slot: number): void {
    this.#head = (this.#head + this.#slots.length - 1) % this.#slots.length
    this.#slots[this.#head] = slot
    this.length++
  }

  /** Takes the oldest out. */
  shift(): void {
    this.#head = (this.#head + 1) % this.#slots.length
    this.length--
  }

  /** Takes one out of the middle; the others keep their order. */
  remove(place: number): void {
    for (let i = place; i + 1 < this.length; i++) this.#slots[(this.#head + i) % this.#slots.length] = this.at(i + 1)
    this.length--
  }
}
