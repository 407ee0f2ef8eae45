/** The detached child of the command: mounts, says so, and lets go of terminal, directory and parent. */
import { once } from 'node:events'
import { startQueueThreadEarly } from '../lib/driver/queue-thread.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { restoreEnvironment } from '../lib/sys/node-environment.js'
import { endBy } from './exit-codes.js'
import type { MountArguments } from './plain-mount.js'

async function serve({ source, mountpoint, options: lists, sloppy = false }: MountArguments): Promise<number> {
  const options = parseMountOptions(lists, { sloppy })
  if (!options.supervise && options.via !== 'fuse-native') startQueueThreadEarly()
  // what follows is loaded while the thread starts
  const { serveMount } = await import('./run-mount.js')
  const { detach } = await import('./detach.js')
  return await serveMount({ source, mountpoint, options }, () => {
    detach()
    process.send!('usable', () => process.disconnect())
  }, true)
}

restoreEnvironment()
const [asked] = await once(process, 'message') as [MountArguments]
process.exitCode = await serve(asked).catch(endBy)
if (process.connected) process.disconnect()
