/** Whether somebody is about to die, as /proc tells. */
import { readFileSync } from 'node:fs'

const SIGKILL_BIT = 1n << 8n

/**
 * Whether a thread is about to die: then, and only then, nobody can tell an interrupted request
 * from one that was never made.
 *
 * @param pid of the thread, as fuse_in_header has it
 */
export function isBeingKilled(pid: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    return [...status.matchAll(/^(?:SigPnd|ShdPnd):\s+([0-9a-f]+)$/gm)].some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n)
  } catch {
    return false
  }
}
