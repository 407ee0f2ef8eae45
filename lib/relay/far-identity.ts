/**
 * Which process a far end is, for the far end of a later link: that one must not begin before this
 * one has ended, since this one may still carry out what it has received (native-notes/relay.md).
 *
 * A process is told from every other of a running kernel by its number, the time of its start, and
 * the namespaces in which these mean something.
 */
import { readFileSync, readlinkSync } from 'node:fs'
import { ProtocolError } from '../errors.js'

export interface FarIdentity {
  /** /proc/sys/kernel/random/boot_id */
  boot: string
  pidNamespace: string
  timeNamespace: string
  pid: number
  /** Since the kernel's start, in clock ticks, as a decimal number. */
  start: string
  /** Where it can be asked to end (far-door.ts). */
  door: string
}

/** Names of doors: nobody else's socket is ever knocked at. */
const DOOR = /^virtiofs-bridge-relay-[0-9a-f]{32}$/

/** A process after the name in its stat file, which may contain anything: state, …, num_threads, itrealvalue, starttime. */
const [STATE, THREADS, START] = [0, 17, 19]

/** @returns undefined when there is no such process */
function processStat(pid: number | 'self'): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

function namespace(kind: 'pid' | 'time'): string {
  try {
    return readlinkSync(`/proc/self/ns/${kind}`)
  } catch {
    // a kernel without them has one
    return ''
  }
}

/** @param door of this process */
export function ownIdentity(door: string): FarIdentity {
  return {
    boot: readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim(),
    pidNamespace: namespace('pid'), timeNamespace: namespace('time'), pid: process.pid, start: processStat('self')![START]!, door,
  }
}

/** Whether it has ended, with every thread: one that hangs in a system call may still write. */
export function hasEnded({ pid, start }: FarIdentity): boolean {
  const stat = processStat(pid)
  return stat === undefined || stat[START] !== start || ('ZX'.includes(stat[STATE]!) && Number(stat[THREADS]) <= 1)
}

/** Why this process cannot tell whether that one has ended, or ''. */
export function whyOutOfSight(before: FarIdentity, own: FarIdentity): string {
  if (before.boot !== own.boot) return 'it is on another host, or its host was started anew: what was written and not fsynced may be lost'
  return before.pidNamespace !== own.pidNamespace || before.timeNamespace !== own.timeNamespace
    ? 'it is in other namespaces (a container of its own?), where it cannot see whether the one before still works on requests' : ''
}

/** @throws ProtocolError when it is none */
export function checkIdentity(value: unknown, end: string): FarIdentity {
  const { boot, pidNamespace, timeNamespace, pid, start, door } = (value ?? {}) as Record<string, unknown>
  const texts = [boot, pidNamespace, timeNamespace, start].every(text => typeof text === 'string' && text.length <= 100)
  if (!texts || typeof door !== 'string' || !DOOR.test(door) || !Number.isSafeInteger(pid) || (pid as number) < 1) {
    throw new ProtocolError(`hello of the ${end} end`, 'process', JSON.stringify(value).slice(0, 60), 'the identity of a process')
  }
  return { boot, pidNamespace, timeNamespace, pid, start, door } as FarIdentity
}
