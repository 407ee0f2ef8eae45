/**
 * The process of one mount by libfuse. fuse-native runs its callbacks on the main loop of its process:
 * here nothing else does anything with the mount, so nobody can deadlock on it. Its parent ends it;
 * without a parent it ends itself.
 */
import { once } from 'node:events'
import { Host } from './host.js'
import { failureOf, type ToChild, type ToParent } from './protocol.js'

// the parent's to handle
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})

function tell(message: ToParent): void {
  if (process.connected) process.send!(message)
}

let code = 0
try {
  const [message] = await once(process, 'message') as [ToChild & { kind: 'mount' }]
  const host = await Host.start(message, tell)
  // like its parent, it keeps no directory in use
  process.chdir('/')
  process.on('message', (message: ToChild) => {
    if (message.kind === 'abort') host.abort()
    else if (message.kind === 'end') host.end()
  })
  process.on('disconnect', () => host.orphaned())
  if (!process.connected) host.orphaned()
  await host.serve()
} catch (error) {
  tell({ kind: 'failed', failure: failureOf(error) })
  // it lets go of us when it has read that
  if (process.connected) await once(process, 'disconnect')
  code = 1
}
// threads of libfuse may be there until the process ends
process.exit(code)
