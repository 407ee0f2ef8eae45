/** An open file or directory of the device. */
import type { Reference } from './engine-request.js'
import type { Opened } from './entry-reply.js'
import type { Node } from './node.js'
import type { Operations } from './operations.js'

/** RELEASE goes to the device when nobody holds it any more: no caller, no request in the background. */
export class OpenFile implements Reference {
  readonly node: Node
  /** Of open(2). */
  readonly flags: number
  readonly fhLow: number
  readonly fhHigh: number
  /** FOPEN_* */
  readonly openFlags: number
  readonly #operations: Operations
  #held = 1

  /** @param node held for as long as the file is open */
  constructor(operations: Operations, node: Node, flags: number, opened: Opened) {
    node.hold()
    this.#operations = operations
    this.node = node
    this.flags = flags
    this.fhLow = opened.fhLow
    this.fhHigh = opened.fhHigh
    this.openFlags = opened.openFlags
  }

  hold(): void {
    this.#held++
  }

  drop(): void {
    if (--this.#held > 0) return
    this.#operations.release(this)
    this.node.drop()
  }
}
