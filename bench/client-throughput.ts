/**
 * One file of 1 GiB, written and read: by the streams of a connected client and through a kernel
 * mount of the same device, one after the other in each repetition. Prints MiB/s and the median of
 * the ratios; exit status 1 when the client has less than 70 % of the mount.
 *
 *   node dist/bench/client-throughput.js [--peers emulated,virtiofsd-rust] [--reps 5] [--mib 1024]
 *
 * Needs root, /dev/fuse and room for the file on a tmpfs (/dev/shm).
 */
import { closeSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { connect, mount, type ConnectOptions } from '../lib/index.js'
import { findPeer, missingPeer, type ClientPeer } from '../test/support/client-peers.js'

const MIB = 1 << 20
const LEAST = 0.7
const { values } = parseArgs({ options: { peers: { type: 'string', default: 'emulated,virtiofsd-rust' }, reps: { type: 'string', default: '5' }, mib: { type: 'string', default: '1024' } } })
const bytes = Number(values.mib) * MIB
const block = Buffer.alloc(MIB, 'virtio-fs')

async function rate(run: () => Promise<void> | void): Promise<number> {
  const start = performance.now()
  await run()
  return bytes / MIB / ((performance.now() - start) / 1000)
}

async function clientWrites(source: string, options: ConnectOptions): Promise<number> {
  await using fs = await connect(source, options)
  return await rate(async () => {
    const handle = await fs.open('/big', 'w')
    await pipeline(function* () { for (let at = 0; at < bytes; at += MIB) yield block }, handle.createWriteStream({ flush: true }))
  })
}

async function clientReads(source: string, options: ConnectOptions): Promise<number> {
  await using fs = await connect(source, options)
  return await rate(async () => {
    let got = 0
    for await (const chunk of (await fs.open('/big')).createReadStream({ highWaterMark: MIB })) got += (chunk as Buffer).length
    if (got !== bytes) throw new Error(`${got} of ${bytes} bytes read`)
  })
}

async function mountWrites(source: string, mountpoint: string, options: ConnectOptions): Promise<number> {
  await using _mounted = await mount({ source, mountpoint, options })
  return await rate(() => {
    const fd = openSync(join(mountpoint, 'big'), 'w')
    for (let at = 0; at < bytes; at += MIB) writeSync(fd, block, 0, MIB)
    fsyncSync(fd)
    closeSync(fd)
  })
}

async function mountReads(source: string, mountpoint: string, options: ConnectOptions): Promise<number> {
  await using _mounted = await mount({ source, mountpoint, options })
  return await rate(() => {
    const fd = openSync(join(mountpoint, 'big'), 'r')
    const buffer = Buffer.alloc(MIB)
    let got = 0
    for (let part = readSync(fd, buffer); part > 0; part = readSync(fd, buffer)) got += part
    closeSync(fd)
    if (got !== bytes) throw new Error(`${got} of ${bytes} bytes read`)
  })
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
}

for (const peer of values.peers.split(',') as ClientPeer[]) {
  const reason = missingPeer(peer)
  if (reason) {
    console.log(`${peer}: ${reason}`)
    continue
  }
  const base = mkdtempSync('/dev/shm/vfb-throughput-')
  const [source, mountpoint] = [join(base, 'source'), join(base, 'mount')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  const rates: Record<string, number[]> = { 'client writes': [], 'mount writes': [], 'client reads': [], 'mount reads': [] }
  try {
    for (let i = 0; i < Number(values.reps); i++) {
      rates['client writes']!.push(await clientWrites(source, findPeer(peer)))
      rates['mount writes']!.push(await mountWrites(source, mountpoint, findPeer(peer)))
      rates['client reads']!.push(await clientReads(source, findPeer(peer)))
      rates['mount reads']!.push(await mountReads(source, mountpoint, findPeer(peer)))
    }
  } finally {
    rmSync(base, { recursive: true })
  }
  for (const [name, all] of Object.entries(rates)) console.log(`${peer}: ${name}: ${all.map(each => each.toFixed(0)).join(' ')} MiB/s`)
  for (const what of ['writes', 'reads']) {
    const ratio = median(rates[`client ${what}`]!.map((each, i) => each / rates[`mount ${what}`]![i]!))
    console.log(`${peer}: ${what}: ${ratio.toFixed(2)} of the mount`)
    if (ratio < LEAST) process.exitCode = 1
  }
}
