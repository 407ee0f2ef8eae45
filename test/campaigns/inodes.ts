/**
 * How the inode table does with very many inodes: memory, descriptors, and the price of a lookup.
 *
 *     node dist/test/campaigns/inodes.js [--inodes 2000000] [--parent /dev/shm] [--names]
 *
 * Makes that many files on a tmpfs, looks each up without a kernel in between, uses some of them at
 * random, and forgets all. `--names`: without file handles. Needs about 1 KiB of memory a file.
 */
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Passthrough } from '../../lib/device/passthrough/passthrough.js'
import { closePassthrough, openPassthrough } from '../../lib/device/passthrough/shared.js'
import { defaultOptions } from '../../lib/device/passthrough/options.js'
import { FuseClient } from '../support/fuse-client.js'

const { values } = parseArgs({ options: { inodes: { type: 'string', default: '2000000' }, parent: { type: 'string', default: '/dev/shm' }, names: { type: 'boolean', default: false } } })
const COUNT = Number(values.inodes)
const PER_DIRECTORY = 10_000
const ROOT = 1n

function residentBytes(): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** Resident bytes of the table itself: the one anonymous mapping of its size. */
function tableBytes(address: number): number {
  const start = address.toString(16).padStart(8, '0')
  const entry = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).find(text => text.startsWith(`${start}-`))
  return Number(/^Rss:\s+(\d+)/m.exec(entry ?? '')?.[1] ?? NaN) * 1024
}

function timed(what: string, count: number, body: () => void): void {
  const start = performance.now()
  body()
  const ms = performance.now() - start
  console.log(`${what}: ${(ms / 1000).toFixed(1)} s, ${(ms * 1000 / count).toFixed(2)} us each; ${descriptors()} descriptors, ${Math.round(residentBytes() / 2 ** 20)} MiB resident`)
}

const root = mkdtempSync(join(values.parent, 'inodes-'))
try {
  timed('make files', COUNT, () => {
    for (let i = 0; i < COUNT; i++) {
      if (i % PER_DIRECTORY === 0) mkdirSync(join(root, `d${i / PER_DIRECTORY}`))
      closeSync(openSync(join(root, `d${Math.floor(i / PER_DIRECTORY)}`, `f${i}`), 'wx'))
    }
  })
  const shared = openPassthrough({ ...defaultOptions, root }, values.names ? { fileHandles: false } : {})
  const client = new FuseClient(new Passthrough(shared))
  client.init()
  const directories: bigint[] = []
  const nodes = new BigUint64Array(COUNT)
  const before = tableBytes(shared.address)
  timed('look up', COUNT, () => {
    for (let i = 0; i < COUNT; i++) {
      if (i % PER_DIRECTORY === 0) directories.push(client.lookup(ROOT, `d${i / PER_DIRECTORY}`).nodeid)
      const { error, nodeid } = client.lookup(directories.at(-1)!, `f${i}`)
      if (error !== 0) throw new Error(`lookup of f${i}: ${error}`)
      nodes[i] = nodeid
    }
  })
  client.lookups.clear()
  console.log(`table: ${((tableBytes(shared.address) - before) / COUNT).toFixed(1)} bytes an inode resident`)
  timed('look up again', COUNT, () => {
    for (let i = 0; i < COUNT; i++) if (client.lookup(directories[Math.floor(i / PER_DIRECTORY)]!, `f${i}`).nodeid !== nodes[i]) throw new Error(`f${i} is another one`)
  })
  client.lookups.clear()
  const some = Math.min(COUNT, 200_000)
  timed('ask for attributes at random', some, () => {
    let at = 12345
    for (let i = 0; i < some; i++) {
      at = (at * 1103515245 + 12345) % 2147483648
      const { error } = client.getattr(nodes[at % COUNT]!)
      if (error !== 0) throw new Error(`getattr: ${error}`)
    }
  })
  timed('forget', COUNT, () => {
    for (let from = 0; from < COUNT; from += 4000) client.batchForget([...nodes.subarray(from, from + 4000)].map(nodeid => [nodeid, 2]))
  })
  client.close()
  closePassthrough(shared)
} finally {
  rmSync(root, { recursive: true })
}
