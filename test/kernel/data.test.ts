/** Much data, many files, holes, and names of every kind: the same on both sides of the mount. */
import { createHash } from 'node:crypto'
import { constants, readFileSync, statSync } from 'node:fs'
import { copyFile, mkdir, open, readdir, readFile, rename, stat, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { withMount, type LiveMount, type MountSettings } from '../support/mounts.js'
import { missing, noProgram, PEERS, type Peer } from '../support/peers.js'
import { run } from '../support/program.js'

const MIB = 1 << 20
const LARGE_MIB = 200
const MANY_FILES = 20_000
const TIMEOUT_MS = 120_000

async function sha256(path: string, flags = constants.O_RDONLY): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, flags)
  const chunk = Buffer.alloc(MIB)
  try {
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, MIB, null)
      if (bytesRead === 0) return hash.digest('hex')
      hash.update(chunk.subarray(0, bytesRead))
    }
  } finally {
    await file.close()
  }
}

/** Writes a file whose every 16 bytes are different. @returns its SHA-256 */
async function writeLarge(path: string): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, 'wx')
  const chunk = Buffer.alloc(MIB)
  try {
    for (let i = 0; i < LARGE_MIB; i++) {
      for (let at = 0; at < MIB; at += 16) {
        chunk.writeUInt32LE(i, at)
        chunk.writeUInt32LE(at, at + 4)
        chunk.writeUInt32LE(Math.imul(i * MIB + at, 0x9e3779b1) >>> 0, at + 8)
      }
      hash.update(chunk)
      const { bytesWritten } = await file.write(chunk)
      if (bytesWritten !== MIB) throw new Error(`wrote ${bytesWritten} bytes of ${MIB}`)
    }
  } finally {
    await file.close()
  }
  return hash.digest('hex')
}

async function large(t: Test, { dir, source }: LiveMount): Promise<void> {
  const sum = await writeLarge(join(dir, 'large'))
  t.equal(statSync(join(source, 'large')).size, LARGE_MIB * MIB)
  t.equal(await sha256(join(source, 'large')), sum, 'written through the mount, read directly')
  t.equal(await sha256(join(dir, 'large'), constants.O_RDONLY | constants.O_DIRECT), sum, 'read through the mount, past the page cache')
  await copyFile(join(source, 'large'), join(source, 'copy'))
  t.equal(await sha256(join(dir, 'copy')), sum, 'written directly, read through the mount')
}

async function sparse(t: Test, { dir, source }: LiveMount): Promise<void> {
  const path = join(dir, 'sparse')
  await writeFile(path, '')
  await truncate(path, 1024 * MIB)
  const file = await open(path, 'r+')
  await file.write(Buffer.from('middle'), 0, 6, 512 * MIB + 5)
  await file.sync()
  for (const [side, at] of [['mount', path], ['directory', join(source, 'sparse')]] as const) {
    const { size, blocks } = await stat(at)
    t.equal(size, 1024 * MIB, `${side}: size`)
    t.ok(blocks > 0 && blocks * 512 < MIB, `${side}: ${blocks} blocks, nearly all of it is a hole`)
  }
  const around = Buffer.alloc(16, 0xaa)
  await file.read(around, 0, 16, 512 * MIB)
  t.strictSame(around, Buffer.concat([Buffer.alloc(5), Buffer.from('middle'), Buffer.alloc(5)]))
  const end = Buffer.alloc(16, 0xaa)
  t.equal((await file.read(end, 0, 16, 1024 * MIB - 8)).bytesRead, 8, 'reading ends where the file does')
  t.ok(end.subarray(0, 8).every(byte => byte === 0), 'a hole is zeros')
  await file.close()
  await truncate(path, 512 * MIB + 8)
  const cut = await open(join(source, 'sparse'))
  const left = await cut.read(Buffer.alloc(16), 0, 16, 512 * MIB + 5)
  t.equal(left.buffer.toString('latin1', 0, left.bytesRead), 'mid', 'cut in the middle of the data')
  await cut.close()
}

async function punch(t: Test, { dir, source }: LiveMount): Promise<void> {
  const path = join(dir, 'file')
  await writeFile(path, Buffer.alloc(4 * MIB, 1))
  await run(['fallocate', '--punch-hole', '--offset', String(MIB), '--length', String(2 * MIB), path])
  const expected = Buffer.concat([Buffer.alloc(MIB, 1), Buffer.alloc(2 * MIB), Buffer.alloc(MIB, 1)])
  t.ok((await readFile(path)).equals(expected), 'through the mount')
  t.ok((await readFile(join(source, 'file'))).equals(expected), 'directly')
  t.ok(statSync(join(source, 'file')).blocks * 512 < 3 * MIB, 'the room was given back')
}

const NAMES: readonly Buffer[] = [
  'plain', 'with space', ' leading', 'trailing ', 'new\nline', 'tab\there', 'back\\slash', '"quotes\'', '-dash', '.hidden', '...', '*', '?', 'a'.repeat(255),
  'größe', 'gro\u0308ße', '日本語', '😀', 'é'.repeat(127), '\u202eright-to-left',
].map(name => Buffer.from(name)).concat([
  Buffer.from([0xff]), Buffer.from([0x80, 0x81, 0xfe]), Buffer.from('latin1-\xe4\xf6\xfc', 'latin1'), Buffer.from([0xc3]), Buffer.from([0xed, 0xa0, 0x80]),
  Buffer.from([0x01, 0x1f, 0x7f]), Buffer.alloc(255, 0xfd),
])

async function names(t: Test, { dir, source }: LiveMount): Promise<void> {
  const inside = (at: string, name: Buffer): Buffer => Buffer.concat([Buffer.from(`${at}/`), name])
  const sorted = (list: Buffer[]): string[] => list.map(name => name.toString('hex')).sort()
  await mkdir(join(dir, 'names'))
  for (const [i, name] of NAMES.entries()) await writeFile(inside(join(dir, 'names'), name), String(i))
  const expected = sorted([...NAMES])
  t.strictSame(sorted(await readdir(join(dir, 'names'), { encoding: 'buffer' })), expected, 'listed through the mount')
  t.strictSame(sorted(await readdir(join(source, 'names'), { encoding: 'buffer' })), expected, 'listed directly')
  for (const [i, name] of NAMES.entries()) {
    t.equal(await readFile(inside(join(source, 'names'), name), 'utf8'), String(i), `directly: ${name.toString('hex')}`)
    t.equal(await readFile(inside(join(dir, 'names'), name), 'utf8'), String(i), `through the mount: ${name.toString('hex')}`)
  }
  const strange = Buffer.from([0xfe, 0x20, 0xff])
  await rename(inside(join(dir, 'names'), NAMES[0]!), inside(join(dir, 'names'), strange))
  t.equal(await readFile(inside(join(source, 'names'), strange), 'utf8'), '0', 'renamed')
  for (const name of [...NAMES.slice(1), strange]) await unlink(inside(join(dir, 'names'), name))
  t.strictSame(await readdir(join(source, 'names')), [], 'removed')
  await t.rejects(writeFile(join(dir, 'a'.repeat(256)), ''), { code: 'ENAMETOOLONG' })
}

async function many(t: Test, { dir, source }: LiveMount, count: number): Promise<void> {
  const script = fileURLToPath(new URL('../support/file-load.js', import.meta.url))
  const times = await run([process.execPath, script, dir, String(count)], { timeoutMs: TIMEOUT_MS })
  t.comment(`${count} files, in milliseconds: ${times.trim()}`)
  t.strictSame(await readdir(source), [], 'nothing of them is left')
}

/** A descriptor per known inode could end at the limit of descriptors. */
function forManyFiles(peer: Peer): Partial<MountSettings> {
  return peer === 'virtiofsd-rust' ? { backendArgs: ['--inode-file-handles=prefer'] } : {}
}

/** The C virtiofsd knows no file handles: it can have as many files as it may have descriptors. */
function fileCount(peer: Peer): number {
  if (peer !== 'virtiofsd-c') return MANY_FILES
  const hardLimit = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  return Math.min(MANY_FILES, Number(hardLimit) - 500)
}

for (const peer of PEERS) {
  const skip = missing(peer)
  t.test(`${peer}: ${LARGE_MIB} MB written and read on both sides`, { skip }, async t => {
    await withMount(t, { peer, timeoutMs: TIMEOUT_MS }, async live => await large(t, live))
  })
  t.test(`${peer}: ${fileCount(peer)} files`, { skip }, async t => {
    await withMount(t, { peer, timeoutMs: TIMEOUT_MS, ...forManyFiles(peer) }, async live => await many(t, live, fileCount(peer)))
  })
  t.test(`${peer}: sparse files`, { skip }, async t => {
    await withMount(t, { peer }, async live => await sparse(t, live))
  })
  t.test(`${peer}: punching a hole`, { skip: skip || noProgram('fallocate') }, async t => {
    await withMount(t, { peer }, async live => await punch(t, live))
  })
  t.test(`${peer}: names in UTF-8 and not`, { skip }, async t => {
    await withMount(t, { peer }, async live => await names(t, live))
  })
}
