/** The detached child of the command: mounts, says so, and lets go of terminal, directory and parent. */
import { once } from 'node:events'
import { startQueueThreadEarly } from '../lib/driver/queue-thread.js'
import { parseMountOptions } from '../lib/mount/options.js'
import type { DaemonSetup } from './daemon.js'
import { endBy } from './exit-codes.js'

async function serve({ asked, certificates }: DaemonSetup): Promise<number> {
  if (certificates !== undefined) process.env['NODE_EXTRA_CA_CERTS'] = certificates
  const { source, mountpoint } = asked
  const options = parseMountOptions(asked.options, { sloppy: asked.sloppy ?? false })
  if (!options.supervise && options.via !== 'fuse-native') startQueueThreadEarly()
  // what follows is loaded while the thread starts
  const { serveMount } = await import('./run-mount.js')
  const { detach } = await import('./detach.js')
  return await serveMount({ source, mountpoint, options }, () => {
    detach()
    process.send!('usable', () => process.disconnect())
  }, true)
}

const [setup] = await once(process, 'message') as [DaemonSetup]
process.exitCode = await serve(setup).catch(endBy)
if (process.connected) process.disconnect()
