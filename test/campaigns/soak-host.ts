/**
 * The process that mounts in the soak: mounts come and go in it for as long as it lives, so that
 * what one of them leaves adds up. Driven over IPC by soak.ts.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { FaultControl, mount, type Mount, type MountOptions, type UnmountOptions } from '../../lib/index.js'
import { errorLine } from '../../lib/errors.js'

export type HostCommand =
  | { id: number, do: 'mount', slot: number, source: string, mountpoint: string, options: MountOptions, faults: boolean }
  | { id: number, do: 'unmount', slot: number, options: UnmountOptions }
  | { id: number, do: 'drop', slot: number, opcode: string }
  | { id: number, do: 'use' }

/** What the process has in use. */
export interface Use {
  fds: number
  threads: number
  /** Of memfds, the shared memory of devices. */
  mappings: number
  rssMb: number
}

const mounts = new Map<number, Mount>()
const faults = new Map<number, FaultControl>()

function use(): Use {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    mappings: readFileSync('/proc/self/maps', 'latin1').split('\n').filter(line => line.includes('memfd:')).length,
    rssMb: process.memoryUsage.rss() / 2 ** 20,
  }
}

async function run(command: HostCommand): Promise<unknown> {
  switch (command.do) {
    case 'mount': {
      const { slot, source, mountpoint, options } = command
      const control = command.faults ? new FaultControl() : undefined
      const mounted = await mount({ source, mountpoint, options, ...control && { faults: control } })
      mounts.set(slot, mounted)
      if (control) faults.set(slot, control)
      mounted.on('gone', reason => process.send!({ gone: slot, reason }))
      void mounted.closed.then(() => {
        mounts.delete(slot)
        faults.delete(slot)
        process.send!({ closed: slot })
      })
      return {}
    }
    case 'unmount':
      await mounts.get(command.slot)?.unmount(command.options)
      return {}
    case 'drop':
      faults.get(command.slot)?.dropNext(command.opcode, 1_000_000)
      return {}
    case 'use':
      globalThis.gc?.()
      return use()
  }
}

process.on('message', (command: HostCommand) => {
  run(command).then(value => process.send!({ id: command.id, value }), error => process.send!({ id: command.id, error: errorLine(error) }))
})
process.on('disconnect', () => process.exit(0))
