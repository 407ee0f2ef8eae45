/** Handlers on the thread of a queue for a device whose file system lives on another: it gets everything. */
import { MAY_BLOCK, type Handlers } from './handlers.js'

const elsewhere: Handlers = { handle: () => MAY_BLOCK, close: () => {} }

export function createHandlers(): Handlers {
  return elsewhere
}
