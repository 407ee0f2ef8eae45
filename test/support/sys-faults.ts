/**
 * Makes one call of lib/sys fail at its n-th use. Loaded by `node --import` before anything else,
 * so in every thread of a process; the threads share what is armed.
 *
 * The call is not made, as when the system refuses it; but close and munmap are, and fail all the
 * same: Linux frees the descriptor in any case.
 */
import { getEnvironmentData, isMainThread, setEnvironmentData } from 'node:worker_threads'
import type { Intermediary, RawCall } from '../../lib/sys/libc.js'

const KEY = 'virtiofs-bridge.faults'
const INTERMEDIARY = Symbol.for('virtiofs-bridge.intermediary')

/** Words of the shared memory. */
const Word = { FUNCTION: 0, ERROR: 1, COUNTDOWN: 2, THREADS: 3, FIRED: 4, USES: 5, WORDS: 6 } as const

/** Which threads a fault is for. */
export type FaultThreads = 'main' | 'workers'
/** A number is an errno; half: a read or write of half the bytes asked for. */
export type FaultError = number | 'half'

const HALF = -1
const MAIN = 1
const WORKERS = 2
const HALVABLE = new Set(['read', 'write', 'readv', 'writev', 'preadv2', 'pwritev2', 'sendmsg', 'recvmsg', 'copy_file_range', 'getdents64'])
const DONE_ANYWAY = new Set(['close', 'munmap'])

if (isMainThread && getEnvironmentData(KEY) === undefined) setEnvironmentData(KEY, new SharedArrayBuffer(4 * Word.WORDS))
const words = new Int32Array(getEnvironmentData(KEY) as SharedArrayBuffer)
const here = isMainThread ? MAIN : WORKERS

/** A number for the name of a function: FNV-1a. */
function numberOf(name: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return hash | 1
}

function nameOf(prototype: string): string {
  return /(\w+)\(/.exec(prototype)![1]!
}

/** What is to happen at this use: 0, an errno, or HALF. */
function due(id: number): number {
  if (Atomics.load(words, Word.FUNCTION) !== id || (Atomics.load(words, Word.THREADS) & here) === 0) return 0
  Atomics.add(words, Word.USES, 1)
  if (Atomics.sub(words, Word.COUNTDOWN, 1) !== 1) return 0
  Atomics.store(words, Word.FIRED, 1)
  return Atomics.load(words, Word.ERROR)
}

const intermediary: Intermediary = {
  bind(prototype, call, setErrno): RawCall {
    const name = nameOf(prototype)
    const id = numberOf(name)
    return (...args) => {
      const error = due(id)
      if (error === 0) return call(...args)
      if (error === HALF) {
        // the third argument is a number of bytes, or of buffers, of which one is left out
        const asked = args[2] as number
        return call(args[0]!, args[1]!, name.endsWith('v') || name.endsWith('v2') ? Math.max(1, asked - 1) : Math.max(1, asked >> 1), ...args.slice(3))
      }
      if (DONE_ANYWAY.has(name)) call(...args)
      setErrno(error)
      // MAP_FAILED
      return name === 'mmap' ? 0xffff_ffff_ffff_ffffn as unknown as number : -1
    }
  },
  beforeAsync: prototype => -Math.max(0, due(numberOf(nameOf(prototype)))),
}
Object.assign(globalThis, { [INTERMEDIARY]: intermediary })

/** Makes the n-th use of a function fail, counted from now over all of the threads; once. */
export function armFault(name: string, threads: FaultThreads, n: number, error: FaultError): void {
  disarmFault()
  if (error === 'half' && !HALVABLE.has(name)) throw new Error(`${name} has no number of bytes`)
  Atomics.store(words, Word.ERROR, error === 'half' ? HALF : error)
  Atomics.store(words, Word.COUNTDOWN, n)
  Atomics.store(words, Word.THREADS, threads === 'main' ? MAIN : WORKERS)
  Atomics.store(words, Word.FIRED, 0)
  Atomics.store(words, Word.USES, 0)
  Atomics.store(words, Word.FUNCTION, numberOf(name))
}

/** @returns how often the function was used since it was armed, and whether it failed */
export function disarmFault(): { uses: number, fired: boolean } {
  Atomics.store(words, Word.FUNCTION, 0)
  return { uses: Atomics.load(words, Word.USES), fired: Atomics.load(words, Word.FIRED) === 1 }
}
