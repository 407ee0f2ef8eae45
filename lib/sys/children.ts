/** Processes that a child has left behind: they become children of this process, which ends them. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { bind, check, result } from './libc.js'

const c_prctl = bind('int prctl(int, uintptr_t)')
const c_waitpid = bind('int waitpid(int, uintptr_t, int)')
const PR_SET_CHILD_SUBREAPER = 36
const WNOHANG = 1
const LOOK_MS = 2

/** Orphans among the descendants of this process become its children from now on. @throws SyscallError */
export function adoptOrphans(): void {
  check(result(c_prctl(PR_SET_CHILD_SUBREAPER, 1)), 'prctl', 'PR_SET_CHILD_SUBREAPER')
}

/** Children of this process, whoever started them. */
function children(): number[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number).filter(pid => {
    try {
      // behind the name, which may hold anything: state, parent
      return Number(readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ')[1]) === process.pid
    } catch {
      return false
    }
  })
}

/**
 * Kills all children of this process, and theirs, and waits until none of their threads can do
 * anything any more.
 *
 * @returns one that has not ended in time, or undefined
 */
export async function endChildren(timeoutMs: number): Promise<number | undefined> {
  const endMs = performance.now() + timeoutMs
  for (;;) {
    const [first, ...more] = children()
    if (first === undefined) return undefined
    for (const pid of [first, ...more]) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it has ended meanwhile
      }
      // a process is not reaped before its last thread has ended
      c_waitpid(pid, 0, WNOHANG)
    }
    if (performance.now() > endMs) return first
    await sleep(LOOK_MS)
  }
}
