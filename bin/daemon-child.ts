/** The detached child of the command: mounts, says so, and lets go of terminal, directory and parent. */
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { errorLine } from '../lib/errors.js'
import { openLog } from '../lib/mount/log.js'
import type { MountRequest } from '../lib/mount/mount.js'
import { dup2 } from '../lib/sys/io.js'
import { exitCodeOf } from './exit-codes.js'
import { mountCommand } from './mount-command.js'

function detach(): void {
  const nowhere = openSync('/dev/null', 'r+')
  for (const fd of [0, 1, 2]) dup2(nowhere, fd)
  closeSync(nowhere)
  process.chdir('/')
  process.send!('usable', () => process.disconnect())
}

try {
  const [request] = await once(process, 'message') as [MountRequest]
  process.exitCode = await mountCommand(request, detach, openLog(request.options?.log))
} catch (error) {
  console.error(`virtiofs-bridge: ${errorLine(error)}`)
  process.exitCode = exitCodeOf(error)
}
if (process.connected) process.disconnect()
