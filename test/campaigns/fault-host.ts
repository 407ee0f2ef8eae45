/** The process that mounts in the campaign of failing system calls (faults.ts): does what it is told, and says what it holds. */
import { mount, type Mount } from '../../lib/index.js'
import { parseMountOptions } from '../../lib/mount/options.js'
import { held } from '../support/held.js'
import { armFault, disarmFault, type FaultError, type FaultThreads } from '../support/sys-faults.js'

export interface Fault {
  name: string
  threads: FaultThreads
  /** Which use of it fails, counted from 1. */
  n: number
  error: FaultError
}

export type HostCommand =
  | { type: 'mount', source: string, mountpoint: string, options: string[], fault: Fault }
  | { type: 'unmount', abort: boolean }
  | { type: 'held' }

/** `error` is what was thrown, in one line; `stack` for an error that is none of the library's. */
export interface HostAnswer { error?: string, stack?: string | undefined, uses?: number, fired?: boolean, held?: string[] }

const OWN_ERRORS = ['SyscallError', 'ProtocolError', 'PeerGoneError', 'UsageError', 'TagInUseError']
let mounted: Mount | undefined

function describe(error: unknown): HostAnswer {
  const { name, message, stack } = error as Error
  return { error: `${name}: ${message}`, stack: OWN_ERRORS.includes(name) ? undefined : stack }
}

async function obey(command: HostCommand): Promise<HostAnswer> {
  switch (command.type) {
    case 'held': return { held: held() }
    case 'mount': {
      const { fault, source, mountpoint, options } = command
      armFault(fault.name, fault.threads, fault.n, fault.error)
      try {
        mounted = await mount({ source, mountpoint, options: parseMountOptions(options) })
        return {}
      } catch (error) {
        return { ...describe(error), ...disarmFault() }
      }
    }
    case 'unmount': {
      let answer: HostAnswer = {}
      try {
        await mounted?.unmount(command.abort ? { abort: true } : {})
        mounted = undefined
      } catch (error) {
        answer = describe(error)
      }
      return { ...answer, ...disarmFault() }
    }
  }
}

process.on('message', (command: HostCommand) => {
  void obey(command).then(answer => process.send!(answer))
})
