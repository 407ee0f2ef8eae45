/** The detached child of the command: mounts, says so, and lets go of terminal, directory and parent. */
import { once } from 'node:events'
import { errorLine } from '../lib/errors.js'
import { openLog } from '../lib/mount/log.js'
import type { MountRequest } from '../lib/mount/mount.js'
import { detach } from './detach.js'
import { exitCodeOf } from './exit-codes.js'
import { mountCommand } from './mount-command.js'

function usable(): void {
  detach()
  process.send!('usable', () => process.disconnect())
}

try {
  const [request] = await once(process, 'message') as [MountRequest]
  const log = openLog(request.options?.log)
  process.exitCode = request.options?.supervise ? await (await import('./supervise-command.js')).superviseCommand(request, usable, log, true) : await mountCommand(request, usable, log)
} catch (error) {
  console.error(`virtiofs-bridge: ${errorLine(error)}`)
  process.exitCode = exitCodeOf(error)
}
if (process.connected) process.disconnect()
