/** Options of what serves a directory, on real mounts: the emulated device, and a virtiofsd that is started for it. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync, chownSync, linkSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statfsSync, statSync, symlinkSync, utimesSync,
  writeFileSync,
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type LiveMount, withMount } from '../support/mounts.js'
import { serve } from '../support/passthrough-fixture.js'
import { BRIDGE, missing, noProgram, peerPath } from '../support/peers.js'
import { getxattr, listxattr, removexattr, setxattr } from '../support/posix-xattrs.js'
import { run, runToEnd } from '../support/program.js'

/** Runs a check on both, with the same options. */
function onBoth(name: string, options: readonly string[], files: (source: string) => void, body: (t: Test, live: LiveMount, emulated: boolean) => Promise<void>): void {
  t.test(`emulated: ${name}`, { skip: missing('emulated') }, async t => {
    await withMount(t, { peer: 'emulated', options, files }, live => body(t, live, true))
  })
  t.test(`backend=virtiofsd: ${name}`, { skip: missing('virtiofsd-rust') }, async t => {
    const backend = ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`]
    await withMount(t, { peer: 'emulated', options: [...backend, ...options], files }, live => body(t, live, false))
  })
}

onBoth('xattrmap', ['xattrmap=:unsupported:client:user.no.:::bad:client:user.bad.:::map::user.virtiofs.:'], source => {
  writeFileSync(join(source, 'file'), '')
  setxattr(join(source, 'file'), 'user.host', 'own')
}, async (t, { dir, source }) => {
  const file = join(dir, 'file')
  setxattr(file, 'user.a', 'one')
  setxattr(file, 'trusted.b', 'two')
  t.strictSame(listxattr(file).sort(), ['trusted.b', 'user.a'])
  t.equal(getxattr(file, 'user.a').toString(), 'one')
  t.strictSame(listxattr(join(source, 'file')).filter(name => name.startsWith('user.')).sort(), ['user.host', 'user.virtiofs.trusted.b', 'user.virtiofs.user.a'])
  t.equal(getxattr(join(source, 'file'), 'user.virtiofs.user.a').toString(), 'one')
  t.throws(() => getxattr(file, 'user.host'), { code: 'ENODATA' })
  t.throws(() => getxattr(file, 'user.bad.x'), { code: 'ENODATA' })
  t.throws(() => setxattr(file, 'user.bad.x', '1'), { code: 'EPERM' })
  t.throws(() => setxattr(file, 'user.no.x', '1'), { code: 'ENOTSUP' })
  removexattr(file, 'user.a')
  t.strictSame(listxattr(file), ['trusted.b'])
})

for (const [option, kept] of [['noatime', ['file', 'dir']], ['nodiratime', ['dir']], ['relatime', []]] as const) {
  t.test(`emulated: ${option} of the mount holds in the shared directory`, { skip: missing('emulated') }, async t => {
    const OLD = 1000
    await withMount(t, {
      peer: 'emulated', options: [option], files: source => {
        writeFileSync(join(source, 'file'), 'x')
        mkdirSync(join(source, 'dir'))
        for (const name of ['file', 'dir']) utimesSync(join(source, name), OLD, OLD + 1)
      },
    }, async ({ dir, source }) => {
      readFileSync(join(dir, 'file'))
      readdirSync(join(dir, 'dir'))
      const unchanged = ['file', 'dir'].filter(name => statSync(join(source, name)).atimeMs === OLD * 1000)
      t.strictSame(unchanged, kept)
    })
  })
}

const EVERYBODY = 4294967295

onBoth('translate_uid and translate_gid', [
  'translate_uid=map:1000:5000:10', 'translate_uid=squash-host:200:77:2', 'translate_uid=forbid-guest:3000:1',
  'translate_gid=guest:1000:6000:1', 'translate_gid=host:6000:1000:1', 'translate_gid=forbid-guest:4000:5',
], source => {
  chmodSync(source, 0o777)
  for (const uid of [4999, 5000, 5009, 5010, 199, 200, 201, 202]) {
    writeFileSync(join(source, `u${uid}`), '')
    chownSync(join(source, `u${uid}`), uid, uid === 5000 ? 6000 : 6001)
  }
  mkdirSync(join(source, 'theirs'))
  chownSync(join(source, 'theirs'), 5003, 6000)
}, async (t, { base, dir, source }, emulated) => {
  chmodSync(base, 0o711)
  const shown = Object.fromEntries(readdirSync(dir).filter(name => name.startsWith('u')).map(name => [name, [statSync(join(dir, name)).uid, statSync(join(dir, name)).gid]]))
  t.strictSame(shown, {
    u4999: [4999, 6001], u5000: [1000, 1000], u5009: [1009, 6001], u5010: [5010, 6001], u199: [199, 6001], u200: [77, 6001], u201: [77, 6001], u202: [202, 6001],
  })
  const make = (name: string, uid: number, gid: number): string | number[] => {
    const path = join(dir, name)
    try {
      execFileSync('mkdir', [path], { uid, gid, stdio: 'pipe' })
    } catch (error) {
      const said = String((error as { stderr: Buffer }).stderr)
      return /not permitted/.test(said) ? 'EPERM' : /Input\/output error/.test(said) ? 'EIO' : said
    }
    return [lstatSync(path).uid, lstatSync(path).gid, lstatSync(join(source, name)).uid, lstatSync(join(source, name)).gid]
  }
  t.strictSame(make('a', 1009, 1000), [1009, 1000, 5009, 6000], 'the last of a range')
  t.strictSame(make('b', 1010, 1001), [1010, 1001, 1010, 1001], 'the first behind it')
  t.strictSame(make('theirs/c', 1003, 1), [1003, 1, 5003, 1], 'who owns a directory writes to it')
  // virtiofsd means EPERM (PermissionDenied), but its error has no errno, and so it answers EIO
  const forbidden = emulated ? 'EPERM' : 'EIO'
  t.equal(make('d', 3000, 1), forbidden)
  t.equal(make('e', 1, 4004), forbidden)
  t.strictSame(make('f', 3001, 4005), [3001, 4005, 3001, 4005])
  chownSync(join(dir, 'f'), 1001, 1000)
  t.strictSame([lstatSync(join(source, 'f')).uid, lstatSync(join(source, 'f')).gid], [5001, 6000], 'chown')
  t.throws(() => chownSync(join(dir, 'f'), 3000, 0), { code: forbidden })
  t.strictSame([lstatSync(join(source, 'f')).uid, lstatSync(join(source, 'f')).gid], [5001, 6000])
})

onBoth('everybody is one user on the host', [`translate_uid=squash-guest:0:1234:${EVERYBODY}`, `translate_gid=squash-guest:0:1235:${EVERYBODY}`, 'translate_uid=host:1234:0:1'], source => {
  chmodSync(source, 0o777)
}, async (t, { dir, source }) => {
  mkdirSync(join(dir, 'made'))
  t.strictSame([lstatSync(join(source, 'made')).uid, lstatSync(join(source, 'made')).gid], [1234, 1235])
  t.strictSame([lstatSync(join(dir, 'made')).uid, lstatSync(join(dir, 'made')).gid], [0, 1235])
})

t.test('hide', { skip: missing('emulated') || noProgram('git') }, async t => {
  await withMount(t, { peer: 'emulated', options: ['hide=.git', 'hide=*.key', 'queues=2'], files: source => {
    mkdirSync(join(source, 'work/.git'), { recursive: true })
    writeFileSync(join(source, 'work/.git/HEAD'), 'ref: refs/heads/main')
    writeFileSync(join(source, 'work/host.key'), 'secret')
    writeFileSync(join(source, 'work/file'), '')
    symlinkSync('.git', join(source, 'work/link'))
  } }, async ({ dir, source }) => {
    const work = join(dir, 'work')
    t.strictSame(readdirSync(work), ['file', 'link'])
    t.throws(() => statSync(join(work, '.git')), { code: 'ENOENT' })
    t.throws(() => readFileSync(join(work, '.git/HEAD')), { code: 'ENOENT' })
    t.throws(() => readFileSync(join(work, 'link/HEAD')), { code: 'ENOENT' }, 'through a symbolic link')
    t.throws(() => readFileSync(join(work, '../work/host.key')), { code: 'ENOENT' })
    t.throws(() => mkdirSync(join(dir, '.git')), { code: 'EPERM' })
    t.throws(() => writeFileSync(join(dir, 'new.key'), ''), { code: 'EPERM' })
    t.throws(() => renameSync(join(work, 'file'), join(work, '.git')), { code: 'EPERM' })
    t.throws(() => linkSync(join(work, 'file'), join(work, 'a.key')), { code: 'EPERM' })
    t.throws(() => symlinkSync('file', join(work, '.git')), { code: 'EPERM' })
    t.match((await runToEnd(['git', 'init', dir])).stderr, /not permitted/)
    renameSync(join(work, 'file'), join(work, 'renamed'))
    t.strictSame(readdirSync(join(source, 'work')).sort(), ['.git', 'host.key', 'link', 'renamed'])
  })
})

t.test('only', { skip: missing('emulated') }, async t => {
  await withMount(t, { peer: 'emulated', options: ['only=*.{c\\,h}', 'only=Makefile'], files: source => {
    mkdirSync(join(source, 'sub'))
    for (const name of ['a.c', 'a.o', 'Makefile', 'sub/b.h', 'sub/notes']) writeFileSync(join(source, name), '')
  } }, async ({ dir, source }) => {
    t.strictSame(readdirSync(dir).sort(), ['Makefile', 'a.c', 'sub'])
    t.strictSame(readdirSync(join(dir, 'sub')), ['b.h'])
    t.throws(() => writeFileSync(join(dir, 'b.o'), ''), { code: 'EPERM' })
    t.throws(() => renameSync(join(dir, 'a.c'), join(dir, 'a')), { code: 'EPERM' })
    renameSync(join(dir, 'sub'), join(dir, 'sub2'))
    writeFileSync(join(dir, 'sub2/c.c'), 'int c;')
    t.strictSame(readdirSync(join(source, 'sub2')).sort(), ['b.h', 'c.c', 'notes'])
  })
})

t.test('hide where case is ignored', { skip: missing('emulated') }, async t => {
  const folding = mkdtempSync(join(tmpdir(), 'vfb-'))
  try {
    if ((await runToEnd(['mount', '-t', 'tmpfs', '-o', 'casefold', 'tmpfs', folding])).exit?.code !== 0) {
      t.pass('not tried', { skip: 'no tmpfs with casefold here' })
      return
    }
    mkdirSync(join(folding, 'plain'))
    mkdirSync(join(folding, 'folds'))
    await run(['chattr', '+F', join(folding, 'folds')])
    for (const sub of ['plain', 'folds']) writeFileSync(join(folding, sub, '.git'), '')
    const { client } = serve(t, { root: folding, hide: ['.git'] })
    t.equal(client.walk('plain/.GIT').error, -constants.errno.ENOENT)
    t.equal(client.walk('folds/.GIT').error, -constants.errno.EACCES, 'no name in it is safe')
    t.equal(client.walk('folds/other').error, -constants.errno.EACCES)
  } finally {
    await runToEnd(['umount', folding])
    rmSync(folding, { recursive: true })
  }
})

const MIB = 1 << 20

/** Fills a file of a size through a mapping, and says how writing it back went. */
const MAP = `
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, int(sys.argv[2]))
m = mmap.mmap(fd, int(sys.argv[2]))
for i in range(0, int(sys.argv[2]), 4096): m[i] = 1
try:
  m.flush()
  os.fsync(fd)
  print('written')
except OSError as e:
  print(e)
`

function du(dir: string): number {
  return Number(execFileSync('du', ['-sk', dir], { encoding: 'utf8' }).split('\t')[0]) * 1024
}

for (const options of [['queues=4'], ['writeback', 'queues=2'], ['cache=never']]) {
  t.test(`max_size, ${options.join(', ')}`, { skip: missing('emulated') }, async t => {
    await withMount(t, { peer: 'emulated', options: ['max_size=16M', ...options], files: source => writeFileSync(join(source, 'old'), Buffer.alloc(MIB, 1)) }, async ({ dir, source }) => {
      const free = (): number => statfsSync(dir).bavail * statfsSync(dir).bsize
      t.ok(free() > 14 * MIB && free() <= 15 * MIB, 'statfs')
      // until there is no room, several at a time; the error may come with a later write or with fsync
      const writers = await Promise.all([0, 1, 2, 3].map(i => runToEnd(['dd', 'if=/dev/zero', `of=${join(dir, `f${i}`)}`, 'bs=64k', 'count=160', 'conv=fsync'])))
      t.ok(writers.some(({ stderr }) => /No space left/.test(stderr)), 'somebody had no room')
      const most = 16 * MIB + 256 * 1024
      t.ok(du(source) <= most && du(source) > 14 * MIB, `${du(source)} bytes`)
      t.ok(free() < MIB + MIB / 2)
      for (const i of [0, 1, 2, 3]) rmSync(join(dir, `f${i}`))
      for (const end = performance.now() + 10_000; free() < 14 * MIB && performance.now() < end;) await sleep(20)
      t.ok(free() > 14 * MIB, 'what is removed is given back')
      // through a mapping: the pages find no room when they are written back
      const mapped = await runToEnd(['python3', '-c', MAP, join(dir, 'mapped'), String(24 * MIB)])
      t.match(mapped.stdout, /No space left|Input\/output error/, `a mapping: ${mapped.stdout}${mapped.stderr}`)
      t.ok(du(source) <= most, `${du(source)} bytes`)
    })
  })
}

t.test('options that a virtiofsd does not have are refused', { skip: missing('emulated') }, async t => {
  const dir = mkdtempSync(join(tmpdir(), 'vfb-'))
  for (const option of ['hide=x', 'only=x', 'max_size=1M']) {
    for (const [source, backend] of [[dir, ',backend=virtiofsd'], ['unix:/nowhere.sock', '']]) {
      const { exit, stderr } = await runToEnd([...BRIDGE, source!, dir, '-o', `${option}${backend}`])
      t.equal(exit?.code, 1)
      t.match(stderr, new RegExp(`option ${option.split('=')[0]} needs`))
    }
  }
  rmSync(dir, { recursive: true })
})
