/** Who is kept out: of the runtime directory and its sockets, of options, of a mount that is not theirs. */
import { chmodSync, chownSync, closeSync, existsSync, lstatSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync, type Dirent } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { findMount, FS_TYPE, readMounts } from '../../lib/mount/mountinfo.js'
import { untilUsable, withMount } from '../support/mounts.js'
import { BRIDGE, missing, noProgram, peerPath } from '../support/peers.js'
import { alice, as } from '../support/posix-users.js'
import { processTree, Program, runToEnd } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

const skip = missing('emulated')

interface Place { base: string, source: string, dir: string, runtime: string, env: NodeJS.ProcessEnv }

async function withPlace(t: Test, body: (place: Place) => Promise<void>): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir, runtime] = ['src', 'mnt', 'run'].map(name => join(base, name)) as [string, string, string]
  for (const path of [source, dir, runtime]) mkdirSync(path)
  chmodSync(base, 0o755)
  writeFileSync(join(source, 'a'), 'content')
  try {
    await body({ base, source, dir, runtime, env: { ...process.env, XDG_RUNTIME_DIR: runtime } })
  } finally {
    if (await clearMount(dir)) t.fail('a mount was left')
    rmSync(base, { recursive: true, force: true })
  }
}

async function mounted(place: Place, options: string[], body: (bridge: Program) => Promise<void>): Promise<void> {
  const bridge = new Program([...BRIDGE, place.source, place.dir, '-f', ...options.flatMap(option => ['-o', option])], { env: place.env })
  try {
    await untilUsable(place.dir, bridge)
    await body(bridge)
    await runToEnd(['umount', place.dir])
    await bridge.endsWithin(10_000)
  } finally {
    await bridge.kill()
  }
}

t.test('runtime files are their user\'s alone', { skip }, async t => {
  await withPlace(t, async place => {
    await mounted(place, [], async () => {
      const look = (): Dirent[] => readdirSync(place.runtime, { recursive: true, withFileTypes: true })
      for (const endMs = performance.now() + 10_000; !look().some(file => file.isSocket()) && performance.now() < endMs;) await sleep(10)
      const files = look()
      t.ok(files.some(file => file.isSocket()), 'a control socket is there')
      for (const file of files) {
        const { mode, uid } = lstatSync(join(file.parentPath, file.name))
        t.equal(uid, process.getuid!())
        t.equal(mode & 0o777, file.isDirectory() ? 0o700 : 0o600, file.name)
      }
      // and though the directories were open: the socket itself is not
      for (const file of files) if (file.isDirectory()) chmodSync(join(file.parentPath, file.name), 0o755)
      chmodSync(place.runtime, 0o755)
      const socket = files.find(file => file.isSocket())!
      const path = join(socket.parentPath, socket.name)
      const code = await new Promise<string>(resolve => {
        as(alice, () => {
          const client = connect(path)
          client.once('connect', () => resolve('connected')).once('error', (error: NodeJS.ErrnoException) => resolve(error.code!))
        })
      })
      t.equal(code, 'EACCES', 'another user cannot talk to it')
    })
  })
})

t.test('a runtime directory of somebody else is not used', { skip }, async t => {
  await withPlace(t, async place => {
    const own = join(place.runtime, 'virtiofs-bridge')
    const refused = async (what: string): Promise<void> => {
      const { exit, stderr } = await runToEnd([...BRIDGE, place.source, place.dir], { env: place.env })
      t.not(exit?.code, 0, what)
      t.match(stderr, /^virtiofs-bridge: runtime directory .* is not a directory of ours\n$/)
      t.notOk(findMount(place.dir))
    }
    mkdirSync(own)
    chownSync(own, alice.uid, alice.gid)
    await refused('another user made it')
    rmSync(own, { recursive: true })
    mkdirSync(join(place.base, 'elsewhere'))
    symlinkSync(join(place.base, 'elsewhere'), own)
    await refused('it is a symbolic link')
    t.strictSame(readdirSync(join(place.base, 'elsewhere')), [], 'and nothing was made behind it')
    rmSync(own)
    mkdirSync(own, { mode: 0o777 })
    chmodSync(own, 0o777)
    await mounted(place, [], async () => { t.equal(statSync(own).mode & 0o777, 0o700, 'one of ours that was open is closed') })
  })
})

t.test('a mount point that is a symbolic link is what it leads to', { skip }, async t => {
  await withPlace(t, async place => {
    const link = join(place.base, 'link')
    symlinkSync(place.dir, link)
    const { exit } = await runToEnd([...BRIDGE, place.source, link], { env: place.env })
    t.equal(exit?.code, 0)
    t.equal(findMount(place.dir)?.type, FS_TYPE, 'it is mounted there')
    t.ok(lstatSync(link).isSymbolicLink())
    // a link that is turned round later must not make umount act elsewhere
    rmSync(link)
    mkdirSync(join(place.base, 'other'))
    symlinkSync(join(place.base, 'other'), link)
    const elsewhere = await runToEnd([...BRIDGE, 'umount', link], { env: place.env })
    t.not(elsewhere.exit?.code, 0)
    t.match(elsewhere.stderr, /is not a mount of virtiofs-bridge/)
    t.equal((await runToEnd([...BRIDGE, 'umount', place.dir], { env: place.env })).exit?.code, 0)
  })
})

t.test('names cannot inject options', { skip }, async t => {
  for (const name of ['src,suid,dev', 'src\\,allow_other', 'src\nfuse fuse rw', '-o ro', 'src" $(touch x)']) {
    await withPlace(t, async place => {
      const source = join(place.base, name)
      mkdirSync(source)
      writeFileSync(join(source, 'a'), 'odd')
      await mounted({ ...place, source }, ['nosuid,nodev'], async () => {
        t.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'odd', JSON.stringify(name))
        const entry = readMounts().filter(each => each.mountpoint === place.dir)
        t.equal(entry.length, 1)
        t.match(readFileSync('/proc/self/mountinfo', 'utf8').split('\n').find(line => line.includes(` ${place.dir} `)), /nosuid,nodev/, 'and the flags are those that were asked for')
        t.notOk(existsSync('x'))
      })
    })
  }
  await withPlace(t, async place => {
    for (const option of ['fsname=a,fd=0', 'rootmode=0', 'user_id=0']) {
      const { exit, stderr } = await runToEnd([...BRIDGE, place.source, place.dir, '-o', option], { env: place.env })
      t.not(exit?.code, 0, `${option} is refused`)
      t.match(stderr, /option/)
    }
  })
})

t.test('names cannot inject options of a virtiofsd', { skip: missing('virtiofsd-c') }, async t => {
  await withPlace(t, async place => {
    const source = join(place.base, 'src,source=')
    mkdirSync(source)
    writeFileSync(join(source, 'a'), 'odd')
    await mounted({ ...place, source }, ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-c')}`], async () => {
      t.equal(readFileSync(join(place.dir, 'a'), 'utf8'), 'odd')
    })
  })
})

t.test('ro holds on our side too', { skip: missing('virtiofsd-rust') }, async t => {
  await withMount(t, { peer: 'virtiofsd-rust', options: ['ro'], files: source => writeFileSync(join(source, 'a'), 'content') }, async live => {
    t.throws(() => writeFileSync(join(live.dir, 'a'), 'changed'), { code: 'EROFS' })
    t.throws(() => mkdirSync(join(live.dir, 'd')), { code: 'EROFS' })
    t.throws(() => rmSync(join(live.dir, 'a')), { code: 'EROFS' })
    t.equal(readFileSync(join(live.source, 'a'), 'utf8'), 'content')
  })
})

t.test('no_allow_other keeps other users out', { skip }, async t => {
  await withPlace(t, async place => {
    chmodSync(place.source, 0o777)
    await mounted(place, ['no_allow_other'], async () => {
      t.throws(() => as(alice, () => readdirSync(place.dir)), { code: 'EACCES' })
    })
  })
})

t.test('where nobody checks permissions other users are let in only when that was said', { skip }, async t => {
  await withPlace(t, async place => {
    chmodSync(place.source, 0o700)
    await mounted(place, ['no_default_permissions'], async () => {
      t.throws(() => as(alice, () => readdirSync(place.dir)), { code: 'EACCES' })
    })
    await mounted(place, ['no_default_permissions', 'allow_other'], async () => {
      t.strictSame(as(alice, () => readdirSync(place.dir)), ['a'])
    })
  })
})

t.test('what a child of the bridge inherits', { skip: missing('virtiofsd-rust') }, async t => {
  await withPlace(t, async place => {
    const leak = openSync('/etc/hostname', 'r')
    await mounted(place, ['backend=virtiofsd', `virtiofsd=${peerPath('virtiofsd-rust')}`], async bridge => {
      const children = processTree(bridge.pid).filter(pid => pid !== bridge.pid)
      t.ok(children.length > 0)
      for (const pid of children) {
        const open = readdirSync(`/proc/${pid}/fd`).map(fd => {
          try {
            return readlinkSync(`/proc/${pid}/fd/${fd}`)
          } catch {
            return ''
          }
        })
        t.notOk(open.some(name => name === '/dev/fuse'), 'not the mount')
      }
    })
    closeSync(leak)
  })
})

t.test('allow_other needs the right to it', { skip: skip || noProgram('setpriv') || noProgram('fusermount3') || (existsSync('/etc/fuse.conf') && /^user_allow_other/m.test(readFileSync('/etc/fuse.conf', 'utf8')) && 'user_allow_other is set here') }, async t => {
  await withPlace(t, async place => {
    for (const path of [place.source, place.dir, place.runtime]) chownSync(path, 65534, 65534)
    const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', 'env', `XDG_RUNTIME_DIR=${place.runtime}`]
    const { exit, stderr } = await runToEnd([...nobody, ...BRIDGE, place.source, place.dir, '-o', 'allow_other'], { env: place.env })
    t.not(exit?.code, 0)
    // where /dev/fuse is closed to others, that comes first
    t.match(stderr, /allow_other|\/dev\/fuse|Permission denied|EACCES|EPERM/i)
    t.notOk(findMount(place.dir))
  })
})
