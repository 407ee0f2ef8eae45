/** The process that serves a mount with a supervisor, which has started it: the first one, which mounts, or one that goes on. */
import { once } from 'node:events'
import type { ToServer } from '../lib/control/supervisor-protocol.js'
import { startQueueThread } from '../lib/driver/queue-thread.js'
import { restoreEnvironment } from '../lib/sys/node-environment.js'

restoreEnvironment()
// before the rest is loaded: callers wait
const thread = startQueueThread(0)
const [serve] = await once(process, 'message') as [Extract<ToServer, { type: 'serve' }>]
const { serveSupervised } = await import('./serve-supervised.js')
process.exitCode = await serveSupervised(serve, thread)
if (process.connected) process.disconnect()
