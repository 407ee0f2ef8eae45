/** The library: mounting, using and unmounting from one process by synchronous calls. */
import t from 'tap'
import { runLibraryScript } from '../support/library-script.js'
import { missing, PEERS } from '../support/peers.js'

const STEPS = [
  'synchronous calls on the own mount', 'what a mount tells of itself', 'a second mount at the same place is refused', 'a mount in use is not unmounted, and goes on',
  'a lazy unmount ends with the last user', 'an abort ends a mount in use', 'unmounted by somebody else', 'await using',
]

for (const peer of PEERS) {
  t.test(`${peer}: a session`, { skip: missing(peer) }, async t => {
    const printed = await runLibraryScript(t, { script: 'library-session', peer, timeoutMs: 60_000 })
    t.strictSame(printed.trim().split('\n'), STEPS)
  })
}
