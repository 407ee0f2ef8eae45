/** The detached child of the command: its first thread starts before the rest, which mounts, is loaded. */
import { once } from 'node:events'
import { startQueueThread } from '../lib/driver/queue-thread.js'
import { restoreEnvironment } from '../lib/sys/node-environment.js'
import type { MountArguments } from './plain-mount.js'

restoreEnvironment()
const thread = startQueueThread(0)
const [asked] = await once(process, 'message') as [MountArguments]
const { serveInBackground } = await import('./serve-in-background.js')
process.exitCode = await serveInBackground(asked, thread)
if (process.connected) process.disconnect()
