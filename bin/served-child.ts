/** The process that serves a mount with a supervisor, which has started it: the first one, which mounts, or one that goes on. */
import { once } from 'node:events'
import type { ToServer } from '../lib/control/supervisor-protocol.js'
import { startQueueThreadEarly } from '../lib/driver/queue-thread.js'
import { restoreEnvironment } from '../lib/sys/node-environment.js'

restoreEnvironment()
const [serve] = await once(process, 'message') as [Extract<ToServer, { type: 'serve' }>]
startQueueThreadEarly()
// what follows is loaded while the thread starts: callers wait
const { serveSupervised } = await import('./serve-supervised.js')
process.exitCode = await serveSupervised(serve)
if (process.connected) process.disconnect()
