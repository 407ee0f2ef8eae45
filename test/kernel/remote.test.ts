/** Mounts of a device behind a relay, over pipes: data, the end of the session, a far end that dies. */
import { createHash } from 'node:crypto'
import { chmodSync, chownSync, closeSync, existsSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { open, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { withMount } from '../support/mounts.js'
import { missing, relaySource, startBackend, type Peer } from '../support/peers.js'
import { processTree, signal, stop } from '../support/program.js'
import { until } from '../support/until.js'
import { eventually } from '../support/scene.js'

const skip = missing('relay')
const MIB = 1 << 20

function digest(data: Uint8Array): string {
  return createHash('sha256').update(data).digest('hex')
}

/** Bytes without a pattern that a lost or doubled page would leave whole. */
function noise(length: number, seed = 1): Buffer {
  const data = Buffer.alloc(length)
  for (let i = 0, x = seed; i + 4 <= length; i += 4) data.writeUInt32LE(x = (Math.imul(x, 1664525) + 1013904223) >>> 0, i)
  return data
}

for (const options of [[], ['writeback'], ['cache=never']]) {
  void t.test(`files through a relay, ${options.join() || 'cache=auto'}`, { skip }, async t => {
    await withMount(t, { peer: 'relay', options }, async ({ dir, source }) => {
      const data = noise(5 * MIB + 12345)
      writeFileSync(join(dir, 'big'), data)
      const fd = openSync(join(dir, 'big'), 'r')
      fsyncSync(fd)
      closeSync(fd)
      t.equal(digest(readFileSync(join(source, 'big'))), digest(data), 'written whole')
      t.equal(digest(readFileSync(join(dir, 'big'))), digest(data), 'read whole')
      writeFileSync(join(source, 'theirs'), data.subarray(0, 3 * MIB + 1))
      t.equal(digest(readFileSync(join(dir, 'theirs'))), digest(data.subarray(0, 3 * MIB + 1)))

      await Promise.all(Array.from({ length: 8 }, async (_, i) => {
        const part = noise(300_000 + i * 4097, i + 2)
        await writeFile(join(dir, `part${i}`), part)
        t.equal(digest(await readFile(join(dir, `part${i}`))), digest(part))
      }))

      mkdirSync(join(dir, 'many'))
      for (let i = 0; i < 100; i++) writeFileSync(join(dir, 'many', `file${i}`), String(i))
      t.equal(readdirSync(join(dir, 'many')).length, 100)
      renameSync(join(dir, 'many'), join(dir, 'moved'))
      t.strictSame(readdirSync(join(source, 'moved')).sort(), readdirSync(join(dir, 'moved')).sort())
      rmSync(join(dir, 'moved'), { recursive: true })
      t.notOk(existsSync(join(source, 'moved')))

      symlinkSync('x'.repeat(4000), join(dir, 'link'))
      chmodSync(join(dir, 'theirs'), 0o640)
      utimesSync(join(dir, 'theirs'), 1_000_000_000, 1_000_000_001)
      const { mode, mtimeMs } = statSync(join(source, 'theirs'))
      t.strictSame([mode & 0o777, mtimeMs], [0o640, 1_000_000_001_000])
    })
  })
}

t.test('the end of a session', { skip }, async t => {
  const place = mkdtempSync(join(tmpdir(), 'vfb-far-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  const farTrace = join(place, 'trace')
  const shared = join(place, 'src')
  mkdirSync(shared)
  await withMount(t, { peer: 'emulated', source: relaySource(shared, [`trace_json=${farTrace}`]) }, async live => {
    writeFileSync(join(live.dir, 'a'), 'a')
    const { pid } = live
    const far = processTree(pid).length
    t.ok(far > 1, 'the far end is a process below the bridge')
    t.equal(await live.unmount(), 0)
    const near = live.trace()
    t.ok(near.some(record => record.event === 'kill_sb.destroy'))
    const records = readFileSync(farTrace, 'utf8').trim().split('\n').map(line => JSON.parse(line) as { event?: string, op?: string, error?: number })
    t.equal(records.filter(record => record.op === 'DESTROY').length, 1, 'one DESTROY came to the far device')
    t.strictSame(records.filter(record => record.event?.startsWith('kill_sb')).map(record => record.event), [
      'kill_sb.stop_hiprio', 'kill_sb.drained', 'kill_sb.destroy', 'kill_sb.stop_queues', 'kill_sb.drained_again', 'kill_sb.stop_rings',
    ])
  })
})

t.test('a far end that is killed', { skip }, async t => {
  await withMount(t, { peer: 'relay', rough: true, options: ['cache=never'] }, async live => {
    const { dir, source } = live
    writeFileSync(join(source, 'a'), 'a')
    const handle = await open(join(dir, 'a'), 'r+')
    const [, ...below] = processTree(live.pid)
    for (const pid of below) signal(pid, 'SIGKILL')
    await until(() => live.bridge.stderr !== '', 5000)
    const operations: (() => Promise<unknown>)[] = [() => handle.read(Buffer.alloc(1), 0, 1, 0), () => stat(join(dir, 'b')), () => writeFile(join(dir, 'new'), 'x')]
    for (const operation of operations) await t.rejects(operation(), { code: 'ENOTCONN' })
    await handle.close().catch(() => {})
    t.equal(await live.unmount(), 0, 'it can be unmounted')
    t.match(live.bridge.stderr, /the far end closed its stream: env ended by SIGKILL; operations fail until it is unmounted/)
  })
})

t.test('what is in flight when the far end dies', { skip }, async t => {
  await withMount(t, { peer: 'relay', rough: true }, async live => {
    const [, ...below] = processTree(live.pid)
    const writers = Array.from({ length: 4 }, async (_, i) => {
      const handle = await open(join(live.dir, `f${i}`), 'w')
      const block = Buffer.alloc(MIB)
      try {
        for (;;) await handle.write(block, 0, MIB, 0)
      } finally {
        await handle.close().catch(() => {})
      }
    })
    const ends = writers.map(async writer => await writer.then(() => '', (error: NodeJS.ErrnoException) => error.code!))
    await until(() => existsSync(join(live.source, 'f3')), 5000)
    for (const pid of below) signal(pid, 'SIGKILL')
    for (const code of await Promise.all(ends)) t.ok(['EIO', 'ENOTCONN'].includes(code), code)
    t.equal(await live.unmount(), 0)
  })
})

t.test('a far end that stops', { skip }, async t => {
  await withMount(t, { peer: 'relay', rough: true, options: ['timeout=1', 'mount_timeout=2'] }, async live => {
    const [, ...below] = processTree(live.pid)
    await stop(below)
    try {
      await t.rejects(stat(join(live.dir, 'nothing')), { code: /EIO|ENOTCONN/ })
      t.equal(await live.unmount(), 0, 'it can be unmounted, and what does not end is killed')
    } finally {
      for (const pid of below) signal(pid, 'SIGCONT')
    }
    await eventually(() => live.bridge.stderr.endsWith('\n'))
    t.match(live.bridge.stderr, /the device did not answer [A-Z]+ within 1 s/)
  })
})

t.test('options of the mount go to the far end', { skip }, async t => {
  await withMount(t, { peer: 'relay', options: ['hide=secret*', 'xattr', 'translate_uid=map:0:1234:1', 'translate_gid=map:0:1235:1'], files: source => chownSync(source, 1234, 1235) }, async ({ dir, source }) => {
    writeFileSync(join(source, 'secret1'), '')
    t.strictSame(readdirSync(dir), [])
    const fd = openSync(join(dir, 'mine'), 'w')
    writeSync(fd, 'x')
    closeSync(fd)
    const { uid, gid } = statSync(join(source, 'mine'))
    t.strictSame([uid, gid], [1234, 1235], 'ids are translated there')
    t.strictSame([statSync(join(dir, 'mine')).uid, statSync(join(dir, 'mine')).gid], [0, 0])
  })
})

for (const peer of ['virtiofsd-rust', 'virtiofsd-c'] as const satisfies readonly Peer[]) {
  void t.test(`a relay of ${peer}`, { skip: missing(peer) }, async t => {
    const place = mkdtempSync(join(tmpdir(), 'vfb-far-'))
    t.teardown(() => rmSync(place, { recursive: true }))
    const shared = join(place, 'src')
    mkdirSync(shared)
    const socket = join(place, 'sock')
    const backend = startBackend(peer, shared, socket)
    t.teardown(() => backend.kill())
    await withMount(t, { peer: 'emulated', source: relaySource(`unix:${socket}`) }, async ({ dir }) => {
      const data = noise(5 * MIB + 777)
      writeFileSync(join(dir, 'big'), data)
      t.equal(digest(readFileSync(join(shared, 'big'))), digest(data))
      t.equal(digest(readFileSync(join(dir, 'big'))), digest(data))
      for (let i = 0; i < 50; i++) writeFileSync(join(dir, `file${i}`), String(i))
      t.equal(readdirSync(dir).length, 51)
      rmSync(join(dir, 'big'))
    })
    t.ok(await backend.endsWithin(5000), 'the backend has ended with the session')
  })
}

t.test('over a long line, many requests are in flight', { skip }, async t => {
  const place = mkdtempSync(join(tmpdir(), 'vfb-far-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  const shared = join(place, 'src')
  mkdirSync(shared)
  const data = noise(48 * MIB)
  writeFileSync(join(shared, 'big'), data)
  const delayMs = 100
  // a request of 1 MiB after the other would take 48 times there and back; half of that is far from it on any machine
  const longMs = 48 * 2 * delayMs / 2
  const line = `'${process.execPath}' '${fileURLToPath(new URL('../support/delayed-pipe.js', import.meta.url))}' ${delayMs} 0`
  await withMount(t, { peer: 'emulated', source: relaySource(shared).replace('exec:env -u NODE_OPTIONS', `exec:env -u NODE_OPTIONS ${line}`), options: ['writeback'] }, async ({ dir }) => {
    let startMs = performance.now()
    const read = readFileSync(join(dir, 'big'))
    const readMs = performance.now() - startMs
    t.equal(digest(read), digest(data))
    t.ok(readMs < longMs, `48 MiB were read in ${readMs.toFixed(0)} ms`)
    startMs = performance.now()
    const fd = openSync(join(dir, 'written'), 'w')
    for (let at = 0; at < data.length; at += MIB) writeSync(fd, data, at, MIB)
    fsyncSync(fd)
    const writeMs = performance.now() - startMs
    closeSync(fd)
    t.ok(writeMs < longMs, `and written in ${writeMs.toFixed(0)} ms`)
    t.equal(digest(readFileSync(join(shared, 'written'))), digest(data), 'what fsync acknowledged is there')
  })
})
