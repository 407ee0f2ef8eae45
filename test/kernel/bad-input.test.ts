/** What bad input gets: one line, the exit code of mount(8), and nothing left, from the command and from the library. */
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { close } from '../../lib/sys/io.js'
import { listenUnix } from '../../lib/sys/socket.js'
import { bits, Feature } from '../../lib/vhost-user/features.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import type { Failure } from '../support/failing-mount.js'
import { missing } from '../support/peers.js'
import { run } from '../support/program.js'
import { eventually, inScene, type Scene } from '../support/scene.js'
import { fsConfigBytes, type BackendOptions } from '../support/vhost-user-backend.js'
import { VhostUserListener } from '../support/vhost-user-listener.js'

interface Input {
  source?: string
  mountpoint?: string
  /** Of -o. */
  options?: string[]
}

interface Case extends Input {
  code: number
  /** What follows `virtiofs-bridge: `. */
  message: RegExp | string
  /** Prepares what the input names. @returns how to undo it */
  prepare?: (scene: Scene) => (() => Promise<void> | void) | Promise<() => Promise<void> | void>
  /** The same line from `probe`. */
  probe?: boolean
}

/** Names that stand for the scene's. */
const [SOURCE, DIR, SOCKET] = ['<source>', '<dir>', '<socket>']

function named(scene: Scene, text: string): string {
  return text.replaceAll(SOURCE, scene.source).replaceAll(DIR, scene.dir).replaceAll(SOCKET, scene.socket)
}

function backend(options: BackendOptions): NonNullable<Case['prepare']> {
  return scene => {
    const listener = new VhostUserListener(scene.socket, options)
    return () => listener.close()
  }
}

function server(onConnection: (socket: Socket) => void): NonNullable<Case['prepare']> {
  return async scene => {
    const sockets: Socket[] = []
    const listening = createServer(socket => {
      sockets.push(socket)
      socket.on('error', () => {})
      onConnection(socket)
    }).listen(scene.socket)
    await once(listening, 'listening')
    return () => {
      for (const socket of sockets) socket.destroy()
      listening.close()
    }
  }
}

function executable(body: string): NonNullable<Case['prepare']> {
  return scene => {
    const path = join(scene.base, 'program')
    writeFileSync(path, `#!/bin/sh\n${body}\n`)
    chmodSync(path, 0o755)
    return () => {}
  }
}

const SHORT = 'mount_timeout=0.5'
const socket = { source: `unix:${SOCKET}`, probe: true }

const CASES: Record<string, Case> = {
  'no such source': { source: `${SOURCE}/nothing`, code: 32, message: `source ${SOURCE}/nothing: no such directory or socket (a tag needs -o socket=PATH)`, probe: true },
  'a source that is a file': {
    source: `${SOURCE}/file`, code: 32, message: `source ${SOURCE}/file is neither a directory nor a socket`, probe: true,
    prepare: scene => { writeFileSync(join(scene.source, 'file'), ''); return () => {} },
  },
  'an empty source': { source: '', code: 1, message: 'the source is empty', probe: true },
  'unix: and nothing': { source: 'unix:', code: 1, message: 'source unix: has no path', probe: true },
  'no such socket': { ...socket, code: 32, message: `${SOCKET}: no such socket` },
  'a file where a socket should be': { ...socket, code: 32, message: `${SOCKET} is not a socket`, prepare: scene => { writeFileSync(scene.socket, ''); return () => {} } },
  'a socket with nobody listening': { ...socket, code: 32, message: `${SOCKET}: nobody is listening on this socket`, prepare: scene => { close(listenUnix(scene.socket)); return () => {} } },
  'a socket that answers garbage': { ...socket, code: 32, message: /^<socket>: GET_FEATURES: .* is .*, expected .*$/, prepare: server(connection => connection.write('HTTP/1.1 400 Bad Request\r\n\r\n')) },
  'a socket that answers nothing': { ...socket, options: [SHORT], code: 32, message: `${SOCKET}: no answer to GET_FEATURES within 0.5 s`, prepare: server(() => {}) },
  'a socket that hangs up': { ...socket, code: 32, message: /^<socket>: the backend closed the connection instead of answering GET_FEATURES$/, prepare: server(connection => { connection.once('data', () => connection.destroy()) }) },
  'a backend without VERSION_1': { ...socket, code: 32, message: /^<socket>: GET_FEATURES: features .*VERSION_1.*$/, prepare: backend({ features: bits(Feature.PROTOCOL_FEATURES, Feature.RING_EVENT_IDX) }) },
  'a backend that hangs up when it gets the memory': { source: `unix:${SOCKET}`, code: 32, message: /^<socket>: the backend closed the connection instead of answering SET_MEM_TABLE$/, prepare: backend({ faults: { [R.SET_MEM_TABLE]: () => 'close' } }) },
  'a backend that never answers INIT': { source: `unix:${SOCKET}`, options: [SHORT], code: 32, message: 'the device did not answer FUSE_INIT within 0.5 s', prepare: backend({}) },
  'a device with an empty tag': { ...socket, code: 32, message: 'virtio-fs device has an empty tag', prepare: backend({ config: fsConfigBytes('', 1) }) },
  'a device whose tag is not text': { ...socket, code: 32, message: 'virtio-fs device has a tag that is not UTF-8: ff', prepare: backend({ config: Buffer.concat([Buffer.of(0xff), fsConfigBytes('', 1).subarray(1)]) }) },
  'a device with no request queue': { ...socket, code: 32, message: 'virtio-fs device "fs" has no request queue', prepare: backend({ config: fsConfigBytes('fs', 0) }) },
  'a tag of 37 bytes': { options: [`tag=${'t'.repeat(37)}`], code: 1, message: `tag "${'t'.repeat(37)}" has 37 bytes, at most 36 are possible` },
  'a tag of 37 bytes in 13 characters': { options: [`tag=${'€'.repeat(12)}t`], code: 1, message: /^tag "€+t" has 37 bytes, at most 36 are possible$/ },
  'an empty tag': { options: ['tag='], code: 1, message: 'option tag needs a value: tag=TAG' },
  'an empty mount point': { mountpoint: '', code: 1, message: 'the mount point is empty' },
  'no such mount point': { mountpoint: `${DIR}/nothing`, code: 32, message: `mount point ${DIR}/nothing does not exist` },
  'a mount point that is a file': {
    mountpoint: `${DIR}/file`, code: 32, message: `mount point ${DIR}/file is not a directory`,
    prepare: scene => { writeFileSync(join(scene.dir, 'file'), ''); return () => {} },
  },
  'a mount point below a file': {
    mountpoint: `${DIR}/file/d`, code: 32, message: `mount point ${DIR}/file/d: not a directory (ENOTDIR)`,
    prepare: scene => { writeFileSync(join(scene.dir, 'file'), ''); return () => {} },
  },
  'an option that there is not': { options: ['nonsense'], code: 1, message: 'unknown option "nonsense"', probe: true },
  'a value that there is not': { options: ['cache=sometimes'], code: 1, message: /^option cache=sometimes: expected auto, always, metadata, never/ },
  'a queue size that is no power of two': { options: ['queue_size=100'], code: 1, message: 'queue_size is 100, expected a power of two from 4 to 1024' },
  'a rule that makes no sense': { options: ['xattrmap=:map:all'], code: 1, message: /xattrmap/ },
  'options of a directory with a socket': { source: `unix:${SOCKET}`, options: ['xattrmap=:ok:all:::'], code: 1, message: 'option xattrmap needs a directory as its source: a backend that runs already has its own' },
  'a virtiofsd for a socket': { source: `unix:${SOCKET}`, options: ['backend=virtiofsd'], code: 1, message: 'backend=virtiofsd needs a directory as its source, not a socket' },
  'no such virtiofsd': { options: ['backend=virtiofsd', `virtiofsd=${SOURCE}/virtiofsd`], code: 32, message: `virtiofsd ${SOURCE}/virtiofsd is not an executable file`, probe: true },
  'a virtiofsd that ends at once': { options: ['backend=virtiofsd', `virtiofsd=${SOURCE}/../program`], code: 32, message: 'virtiofsd ended: no such option', probe: true, prepare: executable('echo first line >&2; echo no such option >&2; exit 1') },
  'a virtiofsd that does nothing': { options: ['backend=virtiofsd', `virtiofsd=${SOURCE}/../program`, SHORT], code: 32, message: /: no answer to GET_FEATURES within 0.5 s$/, prepare: executable('exec sleep 100') },
  'a trace in a directory that there is not': { options: [`trace_json=${SOURCE}/nothing/trace`], code: 32, message: `option trace_json=${SOURCE}/nothing/trace: no such file or directory (ENOENT)` },
  'an audit log that is a directory': { options: [`audit=${SOURCE}`], code: 32, message: `option audit=${SOURCE}: illegal operation on a directory (EISDIR)` },
}

function matches(t: Test, scene: Scene, line: string, { message }: Case, what: string): void {
  const text = line.replaceAll(scene.source, SOURCE).replaceAll(scene.dir, DIR).replaceAll(scene.socket, SOCKET)
  if (typeof message === 'string') t.equal(text, message, what)
  else t.match(text, message, what)
}

async function fails(t: Test, scene: Scene, args: string[], expected: Case): Promise<void> {
  const program = await scene.run(...args)
  t.match(program, { exit: { code: expected.code }, stdout: '' }, `${args[0] === 'probe' ? 'probe' : 'the command'} exits with ${expected.code}`)
  t.match(program.stderr, /^virtiofs-bridge: [^\n]+\n$/, 'one line')
  matches(t, scene, program.stderr.trimEnd().replace('virtiofs-bridge: ', ''), expected, 'which says why')
  t.ok(await eventually(() => scene.leftovers().length === 0, 5000), `nothing is left: ${scene.leftovers().join(', ')}`)
}

const SCRIPT = fileURLToPath(new URL('../support/failing-mount.js', import.meta.url))

async function rejects(t: Test, scene: Scene, source: string, mountpoint: string, options: string[], expected: Case): Promise<void> {
  const { message, before, after } = JSON.parse(await run([process.execPath, SCRIPT, source, mountpoint, ...options], { env: scene.env })) as Failure
  matches(t, scene, message, expected, 'the library says the same')
  t.strictSame(after, before, 'and keeps nothing')
  t.strictSame(scene.leftovers(), [], 'nor does it leave anything')
}

const skip = missing('emulated')

for (const [what, each] of Object.entries(CASES)) {
  t.test(what, { skip }, async t => {
    await inScene(async scene => {
      const undo = await each.prepare?.(scene)
      try {
        const [source, mountpoint] = [named(scene, each.source ?? SOURCE), named(scene, each.mountpoint ?? DIR)]
        const options = (each.options ?? []).map(option => named(scene, option))
        const o = options.length > 0 ? ['-o', options.join(',')] : []
        await fails(t, scene, [source, mountpoint, ...o], each)
        if (each.probe) await fails(t, scene, ['probe', source, ...o], each)
        await rejects(t, scene, source, mountpoint, options, each)
      } finally {
        await undo?.()
      }
    })
  })
}

t.test('a command line that makes no sense', { skip }, async t => {
  await inScene(async scene => {
    const lines: [args: string[], code: number, message: RegExp][] = [
      [[], 1, /: usage: virtiofs-bridge SOURCE MOUNTPOINT \(try --help\)/], [[scene.source], 1, /try --help/], [[scene.source, scene.dir, 'more'], 1, /: argument "more" is one too many; usage: virtiofs-bridge SOURCE MOUNTPOINT \(try --help\)/], [[scene.source, scene.dir, '--nonsense'], 1, /nonsense.*try --help/i],
      [[scene.source, scene.dir, '-o'], 1, /: option -o needs a value \(try --help\)/], [[scene.source, scene.dir, '-s'], 1, /: option -s: .*queues=N/], [[scene.source, scene.dir, '-d'], 1, /: option -d: DEBUG='virtiofs:\*'/], [[scene.source, scene.dir, '-r'], 1, /: option -r: use -o ro$/m],
      [['umount', scene.dir, '-f'], 1, /: option -f: use --abort$/m], [['umount', '-uz', scene.dir], 1, /: option -u: leave it out$/m], [['-d', scene.source, scene.dir], 1, /: option -d: DEBUG/], [['--nonsense', scene.source], 1, /: unknown option --nonsense \(try --help\)$/m], [['umount', scene.dir, '--lasy'], 1, /: unknown option --lasy \(did you mean --lazy\?\)$/m], [['replace', scene.dir, '--socket'], 1, /: option --socket needs a value/], [['unmount', scene.dir], 32, /: source unmount: no such directory, socket or tag \(did you mean the command umount\?\)$/m],
      [['unmount'], 1, /: no command unmount \(did you mean umount\?\)$/m], [['statsu', scene.dir, '--json'], 1, /: no command statsu \(did you mean status\?\)$/m], [['probe', scene.source, '-ogulp'], 1, /unknown option "gulp"/], [['umount'], 1, /usage: virtiofs-bridge umount MOUNTPOINT \(try --help\)/], [['completion', 'fish'], 1, /: SHELL is "fish", expected bash or zsh \(try --help\)/], [['umount', scene.dir], 32, /is not a mount of virtiofs-bridge/], [['umount', ''], 1, /the mount point is empty/], [['umount', 'notag'], 32, /^virtiofs-bridge: notag is not a mount/], [['probe'], 1, /try --help/],
    ]
    for (const [args, code, message] of lines) {
      const program = await scene.run(...args)
      t.match(program, { exit: { code }, stdout: '' }, args.join(' ') || 'nothing at all')
      t.match(program.stderr, /^virtiofs-bridge: [^\n]+\n$/)
      t.match(program.stderr, message)
    }
    t.strictSame(scene.leftovers(), [])
  })
})

t.test('a mount point in use', { skip }, async t => {
  await inScene(async scene => {
    writeFileSync(join(scene.dir, 'there'), '')
    t.match(await scene.run(scene.source, scene.dir), { exit: { code: 0 }, stderr: '' }, 'it need not be empty')
    t.strictSame(readdirSync(scene.dir), [], 'what was there is covered')
    t.match(await scene.run(scene.source, scene.dir), { exit: { code: 32 }, stderr: `virtiofs-bridge: ${scene.dir} is already mounted (${scene.source})\n` })
    t.equal(scene.mounts().length, 1)
    mkdirSync(join(scene.source, 'd'))
    for (const command of ['umount', 'status', 'stats', 'trace', 'replace']) {
      t.match(await scene.run(command, join(scene.dir, 'd')), { exit: { code: 32 }, stdout: '', stderr: `virtiofs-bridge: ${scene.dir}/d is not a mount of virtiofs-bridge (it is in the mount ${scene.dir})\n` }, command)
    }
    t.match(await scene.run('umount', scene.source), { exit: { code: 32 }, stderr: `virtiofs-bridge: ${scene.source} is not a mount of virtiofs-bridge (${scene.source} is mounted on ${scene.dir})\n` })
    t.match(await scene.run('umount', scene.dir), { exit: { code: 0 }, stderr: '' })
    t.strictSame(readdirSync(scene.dir), ['there'], 'and back')
    t.ok(await eventually(() => scene.leftovers().length === 0))
  })
})
