/** CPU time from /proc/PID/stat. */
import { readdirSync, readFileSync } from 'node:fs'

/** USER_HZ, the unit of /proc/PID/stat: 100 on every architecture of this project. */
const TICKS_PER_SECOND = 100

/** CPU seconds of a process and of its children that ended; 0 when the process is gone. */
export function cpuSecondsOf(pid: number | 'self'): number {
  let line: string
  try {
    line = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return 0
  }
  // The name in parentheses may hold anything: utime, stime, cutime, cstime are fields 14–17.
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / TICKS_PER_SECOND
}

/** CPU seconds so far of the calling process and of the servers. */
export function totalCpuSeconds(servers: number[]): number {
  return servers.reduce((sum, pid) => sum + cpuSecondsOf(pid), cpuSecondsOf('self'))
}

/** A process and all its descendants. */
export function processTree(pid: number): number[] {
  const pids = [pid]
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const children = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim()
      if (children) pids.push(...children.split(' ').flatMap(child => processTree(Number(child))))
    }
  } catch {
    // it ended meanwhile
  }
  return pids
}
