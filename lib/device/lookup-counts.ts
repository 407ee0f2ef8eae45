/** How many lookups of each node the kernel holds: it gives them back by FORGET, as many as it got. */
export class LookupCounts {
  readonly #counts = new Map<number, number>()

  add(node: number): void {
    this.#counts.set(node, (this.#counts.get(node) ?? 0) + 1)
  }

  /** @returns whether these were the last ones */
  subtract(node: number, count: number): boolean {
    const held = this.#counts.get(node)
    if (held === undefined) return false
    if (held > count) {
      this.#counts.set(node, held - count)
      return false
    }
    this.#counts.delete(node)
    return true
  }

  /** Takes all nodes that are known. */
  takeAll(): number[] {
    const nodes = [...this.#counts.keys()]
    this.#counts.clear()
    return nodes
  }
}
