/** The virtiofsd builds with each option that changes what the bridge must do: started as for a virtual machine, and by `-o backend=virtiofsd`. */
import { appendFileSync, existsSync, mkdtempSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { withMount, type LiveMount } from '../support/mounts.js'
import { BACKENDS, BRIDGE, missing, noProgram, peerPath, type Peer } from '../support/peers.js'
import { getxattr, setxattr } from '../support/posix-xattrs.js'
import { processTree, Program, run, runToEnd } from '../support/program.js'

type Check = (t: Test, live: LiveMount) => Promise<void> | void

/** What every configuration must be good for. */
async function everyday(t: Test, { dir, source }: LiveMount): Promise<void> {
  const bytes = Buffer.alloc(300_000, 'payload ')
  await mkdir(join(dir, 'd'))
  await writeFile(join(dir, 'd', 'new'), bytes)
  await rename(join(dir, 'd', 'new'), join(dir, 'd', 'moved'))
  await symlink('moved', join(dir, 'd', 'link'))
  t.strictSame((await readdir(join(dir, 'd'))).sort(), ['link', 'moved'])
  t.ok((await readFile(join(dir, 'd', 'link'))).equals(bytes), 'read back')
  t.ok(readFileSync(join(source, 'd', 'moved')).equals(bytes), 'and it is in the shared directory')
  await rm(join(dir, 'd'), { recursive: true })
  t.strictSame(readdirSync(source), ['file'])
}

function initFlags(live: LiveMount): string[] {
  return live.trace().find(record => record.event === 'init')!['flags'] as string[]
}

/** Reads a file so that it is cached, makes it longer behind the mount. @returns sizes by stat, then by reading */
async function changeBehind({ dir, source }: LiveMount): Promise<[stat: number, read: number]> {
  const path = join(dir, 'file')
  await readFile(path)
  // reading made the time of access unknown, so this asks once more
  await stat(path)
  appendFileSync(join(source, 'file'), 'more\n')
  const { size } = await stat(path)
  const file = await open(path)
  const { bytesRead } = await file.read(Buffer.alloc(100), 0, 100, 0)
  await file.close()
  return [size, bytesRead]
}

const LENGTH = 'hello\n'.length
const LONGER = LENGTH + 'more\n'.length

const cached: Check = async (t, live) => { t.strictSame(await changeBehind(live), [LENGTH, LENGTH], 'neither attributes nor data are looked at again') }
const uncached: Check = async (t, live) => { t.strictSame(await changeBehind(live), [LONGER, LONGER], 'a change behind the mount is seen at once') }
const expires: Check = async (t, live) => {
  await changeBehind(live)
  const endMs = performance.now() + 10_000
  while ((await stat(join(live.dir, 'file'))).size !== LONGER && performance.now() < endMs) await sleep(100)
  t.equal(await readFile(join(live.dir, 'file'), 'utf8'), 'hello\nmore\n', 'a change behind the mount is seen after a while')
}
const attributesOnly: Check = async (t, live) => {
  t.equal((await changeBehind(live))[0], LENGTH, 'attributes are not looked at again')
  writeFileSync(join(live.source, 'file'), 'HELLO\n')
  t.equal(await readFile(join(live.dir, 'file'), 'utf8'), 'HELLO\n', 'data are')
}
const tagged = (tag: string): Check => (t, live) => { t.equal(live.trace().find(record => record.event === 'probe')!['tag'], tag) }
const noXattrs: Check = (t, { dir }) => { t.throws(() => setxattr(join(dir, 'file'), 'user.a', 'b'), { code: 'ENOTSUP' }) }
const xattrs: Check = (t, { dir, source }) => {
  setxattr(join(dir, 'file'), 'user.a', 'b')
  t.equal(getxattr(join(source, 'file'), 'user.a').toString(), 'b')
}
const acls: Check = async (t, live) => {
  t.ok(initFlags(live).includes('POSIX_ACL'))
  if (noProgram('setfacl')) return t.comment(noProgram('setfacl') as string)
  await run(['setfacl', '-m', 'u:1234:rw', join(live.dir, 'file')])
  t.match(await run(['getfacl', '-c', '-n', '-p', join(live.source, 'file')]), 'user:1234:rw-')
}
const writesBack: Check = async (t, live) => {
  t.ok(initFlags(live).includes('WRITEBACK_CACHE'))
  const file = await open(join(live.dir, 'file'), 'w')
  for (let i = 0; i < 200; i++) await file.write(`${i}\n`)
  await file.close()
  await run(['sync', '-f', live.dir])
  t.equal(readFileSync(join(live.source, 'file'), 'utf8'), Array.from({ length: 200 }, (_, i) => `${i}\n`).join(''))
  await live.unmount()
  t.ok(live.trace().filter(record => record.op === 'WRITE').length < 20, 'writes are gathered')
}
const readOnly: Check = async (t, { dir }) => {
  t.equal(await readFile(join(dir, 'file'), 'utf8'), 'hello\n')
  await t.rejects(writeFile(join(dir, 'file'), ''), { code: 'EROFS' })
  await t.rejects(mkdir(join(dir, 'd')), { code: 'EROFS' })
}
/** The process that serves: namespaces are made by forking. */
function server(live: LiveMount): number {
  return processTree(live.backend!.pid).at(-1)!
}
const threads = (least: number): Check => async (t, live) => {
  await Promise.all(Array.from({ length: 50 }, (_, i) => writeFile(join(live.dir, `n${i}`), String(i))))
  for (let i = 0; i < 50; i++) if (readFileSync(join(live.source, `n${i}`), 'utf8') !== String(i)) t.fail(`n${i}`)
  t.ok(readdirSync(`/proc/${server(live)}/task`).length >= least, `at least ${least} threads`)
}
const root = (expected: (live: LiveMount) => string): Check => (t, live) => { t.equal(readlinkSync(`/proc/${server(live)}/root`), expected(live), 'where its root is') }
const namespaced: Check = (t, live) => { t.not(readlinkSync(`/proc/${server(live)}/ns/mnt`), readlinkSync('/proc/self/ns/mnt'), 'it has a mount namespace of its own') }

const ALL = [everyday]

const CASES: Record<typeof BACKENDS[number], [args: string[], checks: Check[]][]> = {
  'virtiofsd-rust': [
    [[], [...ALL, expires, tagged('vhost.sock'), noXattrs]],
    [['--tag=my tag'], [...ALL, tagged('my tag')]],
    [['--cache=auto', '--tag=auto'], [...ALL, expires]],
    [['--cache=always'], [...ALL, cached]],
    [['--cache=metadata', '--tag=metadata'], [...ALL, attributesOnly]],
    [['--cache=never'], [...ALL, uncached]],
    [['--xattr'], [...ALL, xattrs]],
    [['--posix-acl'], [...ALL, xattrs, acls]],
    [['--writeback'], [...ALL, writesBack]],
    [['--writeback', '--cache=always', '--xattr', '--tag=all'], [...ALL, xattrs, writesBack]],
    [['--thread-pool-size=4'], [...ALL, threads(5)]],
    [['--readonly'], [readOnly]],
    [['--sandbox=none'], [...ALL, root(() => '/')]],
    [['--sandbox=chroot'], [...ALL, root(live => live.source)]],
    [['--sandbox=namespace'], [...ALL, namespaced]],
  ],
  'virtiofsd-c': [
    [[], [...ALL, expires, tagged('vhost.sock'), noXattrs, namespaced]],
    [['-o', 'cache=always'], [...ALL, cached]],
    [['-o', 'cache=none'], [...ALL, uncached]],
    [['-o', 'xattr,posix_acl'], [...ALL, xattrs, acls]],
    [['-o', 'writeback'], [...ALL, writesBack]],
    [['--thread-pool-size=4'], [...ALL, threads(5)]],
    [['-o', 'sandbox=chroot'], [...ALL, root(live => live.source)]],
  ],
}

for (const peer of BACKENDS) {
  for (const [args, checks] of CASES[peer]) {
    t.test(`${peer} ${args.join(' ')}`, { skip: missing(peer) }, async t => {
      await withMount(t, { peer, backendArgs: args, files: source => writeFileSync(join(source, 'file'), 'hello\n') }, async live => {
        for (const check of checks) await check(t, live)
      })
    })
  }
}

t.test('virtiofsd on a socket path, as for a virtual machine', { skip: missing('virtiofsd-rust') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir, socket] = [join(base, 'src'), join(base, 'mnt'), join(base, 'vhost.sock')]
  for (const each of [source, dir]) mkdirSync(each)
  const backend = new Program([peerPath('virtiofsd-rust'), `--socket-path=${socket}`, `--shared-dir=${source}`])
  try {
    for (let i = 0; i < 1000 && !existsSync(socket); i++) await sleep(10)
    // a socket needs no unix: before it
    t.match(await runToEnd([...BRIDGE, socket, dir]), { exit: { code: 0 }, stderr: '' })
    await writeFile(join(dir, 'a'), 'b')
    t.equal(readFileSync(join(source, 'a'), 'utf8'), 'b')
    t.match(await runToEnd([...BRIDGE, 'umount', dir]), { exit: { code: 0 }, stderr: '' })
    t.match(await backend.endsWithin(5000), { code: 0 }, 'it ends with its client')
  } finally {
    await runToEnd(['umount', '-l', dir])
    await backend.kill()
    rmSync(base, { recursive: true })
  }
})

function alive(pid: number): boolean {
  return existsSync(`/proc/${pid}`)
}

const PEER_OF: readonly Peer[] = BACKENDS

for (const peer of PEER_OF) {
  t.test(`backend=virtiofsd (${peer}) leaves nothing`, { skip: missing(peer) }, async t => {
    const runtime = mkdtempSync(join(tmpdir(), 'vfb-run-'))
    const files = (): string[] => readdirSync(runtime, { recursive: true }).map(String).filter(name => !statSync(join(runtime, name)).isDirectory())
    try {
      await withMount(t, { peer: 'emulated', options: ['backend=virtiofsd', `virtiofsd=${peerPath(peer)}`, 'tag=own'], env: { XDG_RUNTIME_DIR: runtime }, files: source => writeFileSync(join(source, 'file'), 'hello\n') }, async live => {
        await everyday(t, live)
        const pids = processTree(live.pid)
        t.ok(pids.length > 1, 'a virtiofsd runs')
        t.strictSame(files().filter(path => !path.startsWith('virtiofs-bridge/control/')), ['virtiofs-bridge/tags/own'], 'its socket has no name any more: nobody else can connect to it')
        t.equal(await live.unmount(), 0)
        t.strictSame(pids.filter(alive), [], 'no process')
        t.strictSame(files(), [], 'no file')
      })
    } finally {
      rmSync(runtime, { recursive: true })
    }
  })
}
