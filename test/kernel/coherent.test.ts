/**
 * cache=coherent: the kernel keeps everything for ever, and still sees what changes on the host.
 * How long that takes is measured; that nothing is asked meanwhile is read from the trace.
 */
import {
  appendFileSync, chmodSync, closeSync, existsSync, fstatSync, linkSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, renameSync, rmdirSync, rmSync,
  statfsSync, statSync, symlinkSync, truncateSync, unlinkSync, utimesSync, writeFileSync, writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { mount } from '../../lib/index.js'
import { syscall } from '../../lib/sys/libc.js'
import { type LiveMount, withMount } from '../support/mounts.js'
import { missing } from '../support/peers.js'
import { setxattr } from '../support/posix-xattrs.js'
import { until } from '../support/until.js'

const skip = missing('emulated')
const settings = { peer: 'emulated', options: ['cache=coherent', 'xattr'] } as const
const ROUNDS = 20
const SYS_tgkill = process.arch === 'arm64' ? 131 : 234
const SIGUSR2 = 12
/** What is promised, and what a busy machine may make of it once in a while. */
const PROMISED_MS = 10
const WORST_MS = 1000

function content(path: string): string {
  return readFileSync(path, 'utf8')
}

/** A change of the host in round i, and whether a mount shows it. `source` and `dir` are the same directory. */
interface Change {
  name: string
  prepare?(source: string): void
  host(source: string, i: number): void
  seen(dir: string, i: number): boolean
}

const changes: readonly Change[] = [
  {
    name: 'contents of the same length',
    prepare: source => writeFileSync(join(source, 'f'), 'round --'),
    host: (source, i) => {
      const fd = openSync(join(source, 'f'), 'r+')
      writeSync(fd, String(i).padStart(2, '0'), 6)
      closeSync(fd)
    },
    seen: (dir, i) => content(join(dir, 'f')) === `round ${String(i).padStart(2, '0')}`,
  },
  {
    name: 'append',
    prepare: source => writeFileSync(join(source, 'f'), ''),
    host: source => appendFileSync(join(source, 'f'), 'x'),
    seen: (dir, i) => statSync(join(dir, 'f')).size === i + 1 && content(join(dir, 'f')).length === i + 1,
  },
  {
    name: 'truncate',
    prepare: source => writeFileSync(join(source, 'f'), 'y'.repeat(10_000)),
    host: (source, i) => truncateSync(join(source, 'f'), 9999 - i),
    seen: (dir, i) => statSync(join(dir, 'f')).size === 9999 - i,
  },
  {
    name: 'chmod',
    prepare: source => writeFileSync(join(source, 'f'), ''),
    host: (source, i) => chmodSync(join(source, 'f'), 0o600 + i % 8),
    seen: (dir, i) => (statSync(join(dir, 'f')).mode & 0o777) === 0o600 + i % 8,
  },
  {
    name: 'chmod of a directory',
    prepare: source => mkdirSync(join(source, 'd')),
    host: (source, i) => chmodSync(join(source, 'd'), 0o700 + i % 8),
    seen: (dir, i) => (statSync(join(dir, 'd')).mode & 0o777) === 0o700 + i % 8,
  },
  {
    name: 'times',
    prepare: source => writeFileSync(join(source, 'f'), ''),
    host: (source, i) => utimesSync(join(source, 'f'), 1, i),
    seen: (dir, i) => statSync(join(dir, 'f')).mtimeMs === i * 1000,
  },
  {
    name: 'create: a name that was not there',
    host: (source, i) => writeFileSync(join(source, `new${i}`), ''),
    seen: (dir, i) => existsSync(join(dir, `new${i}`)) && readdirSync(dir).includes(`new${i}`) && !existsSync(join(dir, `new${i + 1}`)),
  },
  {
    name: 'mkdir',
    host: (source, i) => mkdirSync(join(source, `new${i}`)),
    seen: (dir, i) => existsSync(join(dir, `new${i}`)) && statSync(dir).nlink === i + 3 && !existsSync(join(dir, `new${i + 1}`)),
  },
  {
    name: 'unlink',
    prepare: source => { for (let i = 0; i < ROUNDS; i++) writeFileSync(join(source, `old${i}`), '') },
    host: (source, i) => unlinkSync(join(source, `old${i}`)),
    seen: (dir, i) => !existsSync(join(dir, `old${i}`)) && !readdirSync(dir).includes(`old${i}`),
  },
  {
    name: 'rmdir',
    prepare: source => { for (let i = 0; i < ROUNDS; i++) mkdirSync(join(source, `old${i}`)) },
    host: (source, i) => rmdirSync(join(source, `old${i}`)),
    seen: (dir, i) => !existsSync(join(dir, `old${i}`)),
  },
  {
    name: 'rename',
    prepare: source => writeFileSync(join(source, 'name0'), ''),
    host: (source, i) => renameSync(join(source, `name${i}`), join(source, `name${i + 1}`)),
    seen: (dir, i) => !existsSync(join(dir, `name${i}`)) && existsSync(join(dir, `name${i + 1}`)),
  },
  {
    name: 'rename over a file, as an editor saves',
    prepare: source => writeFileSync(join(source, 'f'), ''),
    host: (source, i) => {
      writeFileSync(join(source, '.f.tmp'), `version ${i}`)
      renameSync(join(source, '.f.tmp'), join(source, 'f'))
    },
    seen: (dir, i) => content(join(dir, 'f')) === `version ${i}`,
  },
  {
    name: 'rename of a directory with files in it',
    prepare: source => {
      mkdirSync(join(source, 'dir0'))
      writeFileSync(join(source, 'dir0/f'), '')
    },
    host: (source, i) => renameSync(join(source, `dir${i}`), join(source, `dir${i + 1}`)),
    seen: (dir, i) => !existsSync(join(dir, `dir${i}/f`)) && existsSync(join(dir, `dir${i + 1}/f`)),
  },
  {
    name: 'link: the other name counts, too',
    prepare: source => writeFileSync(join(source, 'f'), ''),
    host: (source, i) => linkSync(join(source, 'f'), join(source, `f${i}`)),
    seen: (dir, i) => statSync(join(dir, 'f')).nlink === i + 2,
  },
  {
    name: 'a symbolic link to something else',
    prepare: source => symlinkSync('0', join(source, 'l')),
    host: (source, i) => {
      symlinkSync(`to ${i}`, join(source, '.l'))
      renameSync(join(source, '.l'), join(source, 'l'))
    },
    seen: (dir, i) => readlinkSync(join(dir, 'l')) === `to ${i}`,
  },
]

/** How long each round of a change takes to be seen, in milliseconds, shortest first. */
async function series(t: Test, change: Change, source: string, dir: string): Promise<number[]> {
  mkdirSync(source)
  change.prepare?.(source)
  await until(() => existsSync(dir), WORST_MS)
  readdirSync(dir, { withFileTypes: true }).forEach(entry => entry.isFile() && content(join(dir, entry.name)))
  const times: number[] = []
  for (let i = 0; i < ROUNDS; i++) {
    // everything gets into the caches, and it is the old state
    if (change.seen(dir, i)) t.fail(`${change.name}: round ${i} is seen before it happens`)
    await sleep(i % 5)
    const start = performance.now()
    change.host(source, i)
    await until(() => change.seen(dir, i), WORST_MS)
    times.push(performance.now() - start)
  }
  return times.sort((a, b) => a - b)
}

t.test('a change of the host is seen within 10 ms', { skip }, async t => {
  await withMount(t, settings, async ({ source, dir }) => {
    for (const [number, change] of changes.entries()) {
      let median = Infinity
      // a machine that is busy with something else gets another chance
      for (let chance = 0; chance < 3 && median >= PROMISED_MS; chance++) {
        const times = await series(t, change, join(source, `c${number}-${chance}`), join(dir, `c${number}-${chance}`))
        median = times[ROUNDS / 2]!
        t.comment(`${change.name}: median ${median.toFixed(2)} ms, max ${times.at(-1)!.toFixed(2)} ms`)
      }
      t.ok(median < PROMISED_MS, `${change.name}: median ${median.toFixed(2)} ms`)
    }
  })
})

/** Requests between two calls of statfs on the mount, by opcode. */
function between(live: LiveMount, marks: readonly [number, number]): Record<string, number> {
  const counts: Record<string, number> = {}
  let mark = 0
  for (const { op } of live.trace()) {
    if (op === 'STATFS') mark++
    else if (op !== undefined && mark >= marks[0] && mark < marks[1]) counts[op] = (counts[op] ?? 0) + 1
  }
  return counts
}

t.test('nothing is asked while nothing changes, and it does not expire', { skip }, async t => {
  const files = (source: string): void => {
    mkdirSync(join(source, 'd'))
    for (let i = 0; i < 50; i++) writeFileSync(join(source, 'd', `f${i}`), `file ${i}`)
    symlinkSync('d/f1', join(source, 'l'))
  }
  await withMount(t, { ...settings, files }, async live => {
    const { dir } = live
    const fd = openSync(join(dir, 'd/f0'), 'r')
    const everything = (): void => {
      for (let i = 0; i < 50; i++) statSync(join(dir, 'd', `f${i}`))
      t.equal(content(join(dir, 'l')), 'file 1')
      t.notOk(existsSync(join(dir, 'd/none')))
      t.equal(readdirSync(join(dir, 'd')).length, 50)
      fstatSync(fd)
      t.equal(readSync(fd, Buffer.alloc(10), 0, 10, 0), 6)
    }
    everything()
    everything()
    await until(() => live.trace().filter(({ op }) => op === 'RELEASEDIR').length >= 2, 10_000)
    // the trace tells one statfs from the next; the mount itself was waited for with one
    const before = live.trace().filter(({ op }) => op === 'STATFS').length
    statfsSync(dir)
    for (let round = 0; round < 3; round++) {
      everything()
      await sleep(700)
    }
    statfsSync(dir)
    closeSync(fd)
    await live.unmount()
    const counts = between(live, [before + 1, before + 2])
    const allowed = new Set(['OPEN', 'RELEASE', 'FLUSH', 'OPENDIR', 'RELEASEDIR'])
    t.strictSame(Object.keys(counts).filter(op => !allowed.has(op)), [], 'no LOOKUP, GETATTR, READ, READDIR …')
    t.ok(counts['OPEN']! >= 3, 'but it was used')
  })
})

t.test('what is changed through the mount is not told to it', { skip }, async t => {
  await withMount(t, settings, async live => {
    const { dir } = live
    mkdirSync(join(dir, 'd'))
    for (let i = 0; i < 20; i++) {
      const path = join(dir, 'd', `f${i}`)
      writeFileSync(path, 'a'.repeat(5000))
      appendFileSync(path, 'b')
      truncateSync(path, 4000)
      chmodSync(path, 0o600)
      utimesSync(path, i, i)
      setxattr(path, 'user.a', 'b')
      linkSync(path, `${path}-link`)
      renameSync(path, `${path}-new`)
      t.equal(content(`${path}-new`), 'a'.repeat(4000))
      t.match(statSync(`${path}-link`), { mtimeMs: i * 1000, nlink: 2, size: 4000 })
      unlinkSync(`${path}-link`)
      t.equal(statSync(`${path}-new`).nlink, 1)
    }
    rmSync(join(dir, 'd'), { recursive: true })
    statfsSync(dir)
    await live.unmount()
    t.match(live.trace().find(({ event }) => event === 'kill_sb.stop_notifications'), { written: 0, notCached: 0, refused: 0, bad: 0 })
  })
})

t.test('two mounts of one tree see each other', { skip }, async t => {
  await withMount(t, settings, async ({ source, dir: one }) => {
    await withMount(t, { ...settings, source }, async ({ dir: two }) => {
      for (let i = 0; i < 10; i++) {
        const [from, to] = i % 2 === 0 ? [one, two] : [two, one]
        t.notOk(existsSync(join(to, `f${i}`)))
        writeFileSync(join(from, `f${i}`), '1')
        await until(() => existsSync(join(to, `f${i}`)) && content(join(to, `f${i}`)) === '1', WORST_MS)
        writeFileSync(join(from, `f${i}`), '2')
        await until(() => content(join(to, `f${i}`)) === '2', WORST_MS)
        unlinkSync(join(to, `f${i}`))
        await until(() => !existsSync(join(from, `f${i}`)), WORST_MS)
      }
    })
  })
})

t.test('an open file', { skip }, async t => {
  await withMount(t, { ...settings, files: source => writeFileSync(join(source, 'f'), 'one') }, async ({ source, dir }) => {
    const fd = openSync(join(dir, 'f'), 'r')
    const read = (): string => {
      const buffer = Buffer.alloc(100)
      return buffer.subarray(0, readSync(fd, buffer, 0, 100, 0)).toString()
    }
    t.equal(read(), 'one')
    writeFileSync(join(source, 'f'), 'another')
    await until(() => read() === 'another', WORST_MS)
    t.equal(fstatSync(fd).size, 7)
    unlinkSync(join(source, 'f'))
    await until(() => fstatSync(fd).nlink === 0, WORST_MS)
    t.equal(read(), 'another')
    closeSync(fd)
  })
})

t.test('signals to the thread that watches', { skip }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-coherent-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  mkdirSync(source)
  mkdirSync(dir)
  writeFileSync(join(source, 'f'), '0')
  const ignore = (): void => {}
  process.on('SIGUSR2', ignore)
  const mounted = await mount({ source, mountpoint: dir, options: { cache: 'coherent' } })
  try {
    const thread = (): number => Number(readdirSync('/proc/self/task').find(id => content(`/proc/self/task/${id}/comm`).trim() === 'virtiofs-watch') ?? 0)
    const id = thread()
    t.ok(id > 0)
    // it polls while there are events, and is interrupted there sooner or later
    for (let i = 0; i < 2000; i++) {
      writeFileSync(join(source, 'f'), String(i))
      syscall(SYS_tgkill, process.pid, id, SIGUSR2)
    }
    await sleep(20)
    t.equal(thread(), id, 'it goes on')
    t.equal(content(join(dir, 'f')), '1999')
    writeFileSync(join(source, 'f'), 'last')
    await until(() => content(join(dir, 'f')) === 'last', WORST_MS)
  } finally {
    await mounted.unmount()
    process.off('SIGUSR2', ignore)
    rmSync(base, { recursive: true })
  }
})
