/**
 * Mounts and unmounts again and again in one process, through the library:
 *
 *     node --expose-gc dist/test/support/mount-cycles.js SOURCE MOUNTPOINT COUNT OPTIONS
 *
 * OPTIONS are the library's, as JSON. Reads and writes the mount by synchronous calls each time.
 * Prints what the process held after the warm-up and at the end, as JSON.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { mount, type MountOptions } from '../../lib/index.js'
import { KOFFI_STACK_BYTES } from '../../lib/sys/libc.js'

/** What a process holds. */
export interface Held {
  fds: string[]
  threads: number
  /** All mappings. */
  maps: number
  /** Those for the stacks of koffi's calls, which it keeps of threads that have ended. */
  koffiStacks: number
  /** Mappings of memory that is shared with a device. */
  deviceMaps: number
  children: number
}

const [source, mountpoint, countText, optionsText] = process.argv.slice(2)
const options = JSON.parse(optionsText!) as MountOptions
/** Until libuv's threads, the allocator's arenas and the engine's caches are all there. */
const WARM_UP = 10
const PAGE_BYTES = 4096

/** What every descriptor is, without the numbers that differ from one to the next. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`).replace(/\d+/g, 'N')]
    } catch {
      // the descriptor of this listing itself
      return []
    }
  }).sort()
}

/** Which anonymous mapping has this size, in bytes. */
function ofSize(maps: readonly string[], lengthBytes: number): string[] {
  return maps.filter(line => {
    const [range, , , , inode, name] = line.split(/\s+/)
    const [from, to] = range!.split('-').map(text => parseInt(text, 16))
    return inode === '0' && !name && to! - from! === lengthBytes
  })
}

function held(): Held {
  globalThis.gc!()
  const maps = readFileSync('/proc/self/maps', 'utf8').trim().split('\n')
  return {
    fds: descriptors(), threads: readdirSync('/proc/self/task').length, koffiStacks: ofSize(maps, KOFFI_STACK_BYTES + PAGE_BYTES).length,
    maps: maps.length, deviceMaps: maps.filter(line => line.includes('memfd:')).length,
    children: readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ').filter(text => text !== '').length,
  }
}

async function cycle(i: number): Promise<void> {
  const mounted = await mount({ source: source!, mountpoint: mountpoint!, options })
  assert.equal(readFileSync(join(mountpoint!, 'hello'), 'utf8'), 'hello\n')
  writeFileSync(join(mountpoint!, `file-${i}`), String(i))
  assert.deepEqual(readdirSync(mountpoint!).sort(), [`file-${i}`, 'hello'])
  unlinkSync(join(mountpoint!, `file-${i}`))
  await mounted.unmount()
}

for (let i = 0; i < WARM_UP; i++) await cycle(i)
await sleep(200)
const before = held()
const startMs = performance.now()
for (let i = 0; i < Number(countText); i++) await cycle(i)
const ms = performance.now() - startMs
await sleep(200)
console.log(JSON.stringify({ before, after: held(), ms }))
