/**
 * Runs the mount command in this process, with a signal that comes before its mount is usable, while somebody
 * is already in the mount point; and another one when it has said that it waits for them.
 *
 *     node dist/test/support/early-signal.js SOURCE MOUNTPOINT OPTIONS
 *
 * Prints how it ended, as JSON.
 */
import { openSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { mountCommand } from '../../bin/mount-command.js'
import type { MountOptions } from '../../lib/index.js'
import { findMount } from '../../lib/mount/mountinfo.js'

/** Of open(2): holds a place, and asks the device for nothing. */
const O_PATH = 0o10000000

export interface EarlySignal { code: number, usable: boolean, said: string[] }

const [source, mountpoint, options] = process.argv.slice(2)
const result: EarlySignal = { code: -1, usable: false, said: [] }
const signal = (): void => { process.emit('SIGTERM', 'SIGTERM') }
const ended = mountCommand({ source: source!, mountpoint: mountpoint!, options: JSON.parse(options!) as MountOptions }, () => { result.usable = true }, {
  write: (_, message) => {
    result.said.push(message)
    if (message.includes('detaching it')) setImmediate(signal)
  },
})
// it has not returned from mount(), where it waits for a thread of its own
while (!findMount(mountpoint!)) await turn()
openSync(mountpoint!, O_PATH)
signal()
result.code = await ended
console.log(JSON.stringify(result))
process.exit()
