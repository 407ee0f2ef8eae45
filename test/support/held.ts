/** What a process holds that mounts must give back. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Descriptors, mappings of memfds, threads and children of this process. */
export function held(): string[] {
  const fds = readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/, '')]
    } catch {
      // that of this listing
      return []
    }
  })
  const memfds = readFileSync('/proc/self/maps', 'utf8').split('\n').filter(line => line.includes('memfd:')).length
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim()
  return [...fds.sort(), `${memfds} memfds`, `${readdirSync('/proc/self/task').length} threads`, `children: ${children}`]
}
