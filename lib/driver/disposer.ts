/** A stack of things to undo: set-up pushes, teardown pops in reverse order. */
import createDebug from 'debug'
import { errorLine } from '../errors.js'

const debug = createDebug('virtiofs:driver')

export class Disposer {
  #steps: [name: string, undo: () => void | Promise<void>][] = []

  push(name: string, undo: () => void | Promise<void>): void {
    this.#steps.push([name, undo])
  }

  /** Undoes everything, last first. A step that fails is logged and does not stop the others. */
  async dispose(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step[1]()
      } catch (error) {
        debug('%s: %s', step[0], errorLine(error))
      }
    }
  }
}
