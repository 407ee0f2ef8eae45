/**
 * Threads that wait in a system call, where Node cannot end them: at the end of the process each is
 * told to end, or process.exit would wait for it for ever. For one that cannot be told, because it
 * hangs there, nobody waits: the process ends without it.
 */
import { syscall } from './libc.js'

const SYS_EXIT_GROUP = process.arch === 'arm64' ? 94 : 231

const tellers = new Set<() => void>()

function tellAll(): void {
  for (const tell of tellers) tell()
}

/**
 * @param tell wakes a thread of this one and has it end; must not throw
 * @returns to be called when the thread has ended
 */
export function tellAtExit(tell: () => void): () => void {
  if (tellers.size === 0) process.on('exit', tellAll)
  tellers.add(tell)
  return () => {
    if (tellers.delete(tell) && tellers.size === 0) process.off('exit', tellAll)
  }
}

/** How many hang. */
let stuck = 0

function exitNow(code: number): void {
  syscall(SYS_EXIT_GROUP, code)
}

/**
 * Has the process end, when it ends, at once and without the threads that hang: after the listeners
 * of `exit` that are there by now.
 *
 * @param ended resolves when these have ended after all
 */
export function exitWithout(ended: Promise<unknown>): void {
  if (stuck++ === 0) process.on('exit', exitNow)
  void ended.then(() => { if (--stuck === 0) process.off('exit', exitNow) })
}
