/**
 * The same scenarios as in recordings of the Linux driver, on our mount: what the device sees from
 * the first message to the last, and on which queue.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Counter, sumCounter } from '../../lib/driver/counters.js'
import type { Transport } from '../../lib/driver/transport.js'
import { initFlagNames } from '../../lib/fuse/init.js'
import { MNT_DETACH } from '../../lib/mount/flags.js'
import { dup2 } from '../../lib/sys/io.js'
import { bindMount, unmountFileSystem } from '../../lib/sys/mount.js'
import { Bench, EmulatedTransport, mountDevice, type DriverMount } from '../support/driver-mount.js'
import { missing } from '../support/peers.js'
import { within } from '../support/program.js'
import { Recording } from '../support/recording.js'
import { clearMount } from '../support/stuck.js'
import { ThreadedDevice } from '../support/threaded-device.js'
import { INIT_6_12, NOT_OFFERED, SCENARIOS, VIRTIOFSD_FLAGS, type TraceScenario, type TraceStep } from './linux-traces.js'

const options = { skip: missing('emulated') }

/** Files in the steps with many; the recording has 2000. */
const MANY = 200
/** How long the kernel believes names and attributes here, and the pause between steps: one second in the recordings. */
const VALID_MS = 20
const PAUSE_MS = 25
/** How long a step may take to come to the device completely. */
const STEP_MS = 15_000

type Kind = 'emulated' | 'threaded'

/** What a device saw from INIT to DESTROY. */
interface Session { recording: Recording, mounted: DriverMount }

/** One scenario on our side: what is mounted, and what its device has seen. */
class Replay {
  readonly bench = new Bench()
  readonly second = join(this.bench.base, 'second')
  readonly kind: Kind
  recording = new Recording()
  mounted: DriverMount | undefined
  held = -1
  holder: ChildProcess | undefined
  /** Recordings of the sessions before, complete. */
  readonly sessions: Session[] = []

  constructor(kind: Kind) {
    this.kind = kind
    fs.mkdirSync(this.second)
    fs.writeFileSync(join(this.bench.source, 'hello.txt'), 'hello, share\n')
    fs.writeFileSync(join(this.bench.source, 'big.bin'), Buffer.alloc(8 << 20))
    fs.mkdirSync(join(this.bench.source, 'dir'))
    fs.symlinkSync('hello.txt', join(this.bench.source, 'link'))
  }

  get tag(): string {
    return `trace-${process.pid}`
  }

  makeTransport(): Transport {
    const { handlers, directory } = this.bench.serve()
    const recorded = this.recording.wrap(handlers, directory, { validMs: VALID_MS, initFlags: VIRTIOFSD_FLAGS })
    return this.kind === 'emulated' ? new EmulatedTransport(this.tag, 1, recorded) : new ThreadedDevice({ tag: this.tag, handlers: recorded })
  }

  get session(): Session {
    return { recording: this.recording, mounted: this.mounted! }
  }

  async mount(): Promise<void> {
    // who closed the last file of a lazy unmount does not wait for its end
    if (this.mounted) await within(10_000, this.mounted.mount.closed)
    if (this.mounted) this.sessions.push(this.session)
    this.recording = new Recording()
    this.mounted = await mountDevice(this.makeTransport(), this.bench.dir)
  }

  /** Of those who act: the kernel itself, this thread, the holder of a file. */
  get pids(): number[] {
    return [0, process.pid, ...this.holder ? [this.holder.pid!] : []]
  }

  /** `second/x` is x at the second mount point. */
  path(name: string): string {
    return name.startsWith('second') ? join(this.bench.base, name) : join(this.bench.dir, name)
  }

  /** Whatever the scenario left is ended. */
  async end(t: Test): Promise<void> {
    if (this.held >= 0) fs.closeSync(this.held)
    this.holder?.kill('SIGKILL')
    await unmountFileSystem(this.second, MNT_DETACH)
    if (this.mounted && await within(10_000, this.mounted.mount.unmount({ abort: true }).catch(() => {}).then(() => true)) === undefined) t.fail('the unmount does not end')
    if (await clearMount(this.bench.dir)) t.fail('a mount was left')
    this.bench[Symbol.dispose]()
  }
}

/** A shell has what it opens at one number, moves it to another and closes the first: the device sees a FLUSH. */
function openAsShell(path: string, flags: number): number {
  const fd = fs.openSync(path, flags, 0o644)
  const place = fs.openSync('/dev/null', 'r')
  dup2(fd, place)
  fs.closeSync(fd)
  return place
}

/** Lists a directory entry by entry, looking at each as it comes, as ls and rm do. */
function walk(path: string, look: (entry: string) => void): void {
  const dir = fs.opendirSync(path, { bufferSize: 1 })
  for (let entry = dir.readSync(); entry; entry = dir.readSync()) look(join(path, entry.name))
  dir.closeSync()
}

function exists(path: string): boolean {
  return fs.statSync(path, { throwIfNoEntry: false }) !== undefined
}

function cat(path: string): void {
  const fd = fs.openSync(path, 'r')
  while (fs.readSync(fd, Buffer.alloc(65536)) > 0);
  fs.closeSync(fd)
}

const { O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY } = fs.constants

/** The system calls of the guest's programs (busybox, and a small one of the recording's own). */
const ACTIONS: Record<string, (replay: Replay, ...names: string[]) => void | Promise<void>> = {
  'mount': replay => replay.mount(),
  'umount': replay => replay.mounted!.mount.unmount(),
  'ls': (replay, name) => walk(replay.path(name!), path => { fs.lstatSync(path) }),
  'ls-l': (replay, name) => {
    const links: string[] = []
    walk(replay.path(name!), path => { if (fs.lstatSync(path).isSymbolicLink()) links.push(path) })
    for (const link of links) fs.readlinkSync(link)
  },
  'cat': (replay, name) => cat(replay.path(name!)),
  'echo': (replay, name) => {
    const fd = openAsShell(replay.path(name!), O_WRONLY | O_CREAT | O_TRUNC)
    fs.writeSync(fd, 'data\n')
    fs.closeSync(fd)
  },
  'mkdir': (replay, name) => fs.mkdirSync(replay.path(name!)),
  'mv': (replay, from, to) => {
    exists(replay.path(to!))
    fs.renameSync(replay.path(from!), replay.path(to!))
  },
  'ln-s': (replay, target, name) => {
    exists(replay.path(name!))
    fs.symlinkSync(target!, replay.path(name!))
  },
  'ln': (replay, from, to) => {
    exists(replay.path(to!))
    fs.linkSync(replay.path(from!), replay.path(to!))
  },
  'chmod': (replay, name) => {
    fs.statSync(replay.path(name!))
    fs.chmodSync(replay.path(name!), 0o600)
  },
  'truncate': (replay, name) => {
    const fd = fs.openSync(replay.path(name!), O_WRONLY | O_NONBLOCK)
    fs.ftruncateSync(fd, 3)
    fs.closeSync(fd)
  },
  'df': (replay, name) => { fs.statfsSync(replay.path(name!)) },
  'dd-from': (replay, name) => {
    const fd = openAsShell(replay.path(name!), O_RDONLY)
    for (let i = 0; i < 2; i++) fs.readSync(fd, Buffer.alloc(1 << 20))
    fs.closeSync(fd)
  },
  'dd-to': (replay, name) => {
    const fd = openAsShell(replay.path(name!), O_WRONLY | O_CREAT | O_TRUNC)
    for (let i = 0; i < 2; i++) fs.writeSync(fd, Buffer.alloc(1 << 20, 'x'))
    fs.closeSync(fd)
  },
  // syncfs(2) on the mount: sync(2) does the same to every file system of this machine
  'sync': replay => { execFileSync('sync', ['-f', replay.bench.dir]) },
  'rm-r': (replay, name) => {
    walk(replay.path(name!), path => fs.unlinkSync(path))
    fs.rmdirSync(replay.path(name!))
  },
  'rm': (replay, ...names) => {
    for (const name of names) {
      fs.statSync(replay.path(name))
      fs.unlinkSync(replay.path(name))
    }
  },
  'stat': (replay, name) => { fs.statSync(replay.path(name!)) },
  'create-many': (replay, name) => {
    for (let i = 0; i < MANY; i++) fs.closeSync(fs.openSync(join(replay.path(name!), `f${i}`), O_WRONLY | O_CREAT | O_EXCL))
  },
  'stat-many': (replay, name) => {
    for (let i = 0; i < MANY; i++) fs.statSync(join(replay.path(name!), `f${i}`))
  },
  'drop-caches': (_, what) => fs.writeFileSync('/proc/sys/vm/drop_caches', what!),
  'mount-second': (replay, how) => bindMount(replay.bench.dir, replay.second, how === 'ro'),
  'umount-first': async replay => { await unmountFileSystem(replay.bench.dir, 0) },
  'umount-second': async replay => { await unmountFileSystem(replay.second, 0) },
  'touch': (replay, name) => {
    exists(replay.path(name!))
    fs.closeSync(fs.openSync(replay.path(name!), O_WRONLY | O_CREAT))
  },
  'hold': (replay, name) => { replay.held = fs.openSync(replay.path(name!), 'r') },
  'umount-busy': replay => replay.mounted!.mount.unmount(),
  'umount-lazily': async replay => { await unmountFileSystem(replay.bench.dir, MNT_DETACH) },
  'holder-reads': replay => { fs.readSync(replay.held, Buffer.alloc(100)) },
  'holder-closes': replay => {
    fs.closeSync(replay.held)
    replay.held = -1
  },
  'mount-meanwhile': async replay => { await mountDevice(new EmulatedTransport(replay.tag, 1, replay.bench.serve().handlers), replay.second) },
  'hold-new': async (replay, name) => {
    const program = `const fs = require('fs'), fd = fs.openSync(${JSON.stringify(replay.path(name!))}, 'w'); console.log('open'); process.stdin.on('data', () => { fs.writeSync(fd, 'data\\n'); console.log('written') })`
    replay.holder = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] })
    await once(replay.holder.stdout!, 'data')
  },
  'holder-writes': async replay => {
    replay.holder!.stdin!.write('go\n')
    await once(replay.holder!.stdout!, 'data')
  },
  'holder-is-killed': async replay => {
    replay.holder!.kill('SIGKILL')
    await once(replay.holder!, 'exit')
  },
  'cat-umount': (replay, name) => {
    cat(replay.path(name!))
    return replay.mounted!.mount.unmount()
  },
  'drop-umount': replay => {
    fs.writeFileSync('/proc/sys/vm/drop_caches', '2')
    return replay.mounted!.mount.unmount()
  },
  'rm-umount': (replay, name) => {
    fs.unlinkSync(replay.path(name!))
    return replay.mounted!.mount.unmount()
  },
}

/** Lists of a step that are counted once. */
const ONCE = ['READ', 'WRITE', 'READDIRPLUS']

/**
 * The requests of a step as a sequence like those of the table.
 *
 * @param pids whose: other programs of the machine may look at all mounts
 * @param known nodes that earlier steps gave, and then this one
 */
function sequence(recording: Recording, from: number, pids: readonly number[], known: Set<number>, named: boolean): string[] {
  const tokens: string[] = []
  for (const event of recording.exchange(from)) {
    if (typeof event === 'number') {
      known.add(event)
      continue
    }
    const { op, name, error, entry, pid } = event
    const again = op === 'LOOKUP' && error === '' && known.has(entry)
    // who is killed closes its files on any of its threads
    if (op === 'GETATTR' || op === 'STATX' || again || (!pids.includes(pid) && op !== 'FLUSH')) continue
    // of a directory that somebody else opened
    if (op === 'RELEASEDIR' && !tokens.includes('OPENDIR')) continue
    // which of the two a list goes on with depends on whether its first names are still valid
    const kind = op === 'READDIR' ? 'READDIRPLUS' : op
    const token = kind + (named && name !== '' && op !== 'GETXATTR' ? `:${name}` : '') + (error === '' ? '' : `!${error}`)
    if (!ONCE.includes(kind) || !tokens.includes(token)) tokens.push(token)
  }
  for (let i = 0; i < tokens.length; i++) {
    let end = i
    while (tokens[end]?.startsWith('UNLINK')) end++
    tokens.splice(i, end - i, ...tokens.slice(i, end).sort())
  }
  return tokens
}

/** `(A B)*` written out. */
function expand(pattern: string): string[] {
  return pattern.replace(/\(([^)]*)\)\*/g, (_, group: string) => Array(MANY).fill(group).join(' ')).split(' ').filter(token => token !== '')
}

/** What was sent, with what may be missing put where it was expected, so that both can be compared. */
function withOptional(expected: string[], sent: string[]): string[] {
  const filled = [...sent]
  expected.forEach((token, i) => {
    if (!token.endsWith('?')) return
    if (filled[i] === token.slice(0, -1)) filled[i] = token
    else filled.splice(i, 0, token)
  })
  return filled
}

function forgetsWanted(step: TraceStep): [least: number, most: number] {
  switch (step.forgets) {
    case undefined: return [0, 0]
    case 'many': return [MANY, MANY]
    case 'many+1': return [MANY + 1, MANY + 1]
    case 'up to many': return [0, MANY + 1]
    default: return [step.forgets, step.forgets]
  }
}

async function play(t: Test, replay: Replay, step: TraceStep, known: Set<number>): Promise<void> {
  const [verb, ...names] = step.does.split(' ')
  const mounts = verb === 'mount'
  let from = mounts ? 0 : replay.recording.length
  let failed = ''
  try {
    await ACTIONS[verb!]!(replay, ...names)
  } catch (error) {
    failed = (error as NodeJS.ErrnoException).code ?? String(error)
  }
  if (mounts) known.clear()
  const { recording } = replay
  const expected = expand(step.ours ?? step.linux ?? '')
  // the many files are all alike, and their order is the server's
  const named = !/\*|!ENOENT CREATE F/.test(step.linux ?? '')
  const [least, most] = forgetsWanted(step)
  const look = (): string[] => withOptional(expected, sequence(recording, from, replay.pids, new Set(known), named))
  const forgets = (): number => new Set(recording.forgets(from).map(([node]) => node)).size
  // RELEASE and FORGET come when the caller has gone on
  const endMs = performance.now() + STEP_MS
  while ((look().join() !== expected.join() || forgets() < least) && performance.now() < endMs) await sleep(5)
  t.equal(failed, step.fails ?? '', `${step.does}: ${step.fails ?? 'works'}`)
  t.strictSame(look(), expected, `${step.does}: ${step.because === undefined ? 'as Linux' : `not as Linux (${step.because})`}`)
  t.ok(forgets() >= least && forgets() <= most, `${step.does}: ${forgets()} nodes forgotten`)
  if (step.count) t.equal(recording.requests(from).filter(request => request.op === step.count!.op).length, step.count.ours, `${step.count.op}: ${step.count.ours}, not ${step.count.linux} as Linux (${step.count.because})`)
  sequence(recording, from, replay.pids, known, named)
  for (const [node] of recording.forgets(from)) known.delete(node)
}

/** What holds for every session, from INIT to DESTROY. */
function checkSession(t: Test, { recording, mounted: { fs: { transport, counters, init } } }: Session): void {
  const requests = recording.requests()
  t.equal(requests[0]!.op, 'INIT', 'INIT comes first')
  t.equal(requests.filter(request => request.op === 'INIT' || request.op === 'DESTROY').length, 2, 'once, as does DESTROY')
  t.match(requests.at(-1), { op: 'DESTROY', running: 0, error: '' }, 'which comes last, with nothing in flight')
  t.equal(requests[0]!.unique, 2n, 'unique starts at 2')
  t.ok(requests.every(request => !['FORGET', 'BATCH_FORGET', 'INTERRUPT'].includes(request.op)))
  const uids = (ops: string[]): number[] => [...new Set(requests.filter(request => ops.includes(request.op) && request.pid === process.pid).map(request => request.uid))]
  if (init!.flags.includes('ALLOW_IDMAP')) t.strictSame(uids(['LOOKUP', 'GETATTR']).filter(uid => uid !== -1), [], 'uids only where something is made')
  t.strictSame(uids(['CREATE', 'MKDIR', 'SYMLINK']).filter(uid => uid !== process.getuid!()), [])
  t.strictSame(recording.account().wrong, [], 'lookups given = forgotten + released by DESTROY')
  if (!(transport instanceof ThreadedDevice)) return
  const [hiprio, request] = transport.rings
  t.equal(request!.available, requests.length, 'every request came on the request queue')
  const interrupts = sumCounter(counters, Counter.INTERRUPTS)
  t.ok(hiprio!.available <= recording.forgets().length + interrupts, `hiprio: FORGETs, and ${interrupts} INTERRUPTs, which Linux never sends (interrupt)`)
  t.ok(transport.rings.every(ring => ring.available === ring.used), 'all used')
}

async function replayScenario(t: Test, scenario: TraceScenario, kind: Kind): Promise<void> {
  const replay = new Replay(kind)
  const known = new Set<number>()
  try {
    for (const step of scenario.steps) {
      await play(t, replay, step, known)
      await sleep(PAUSE_MS)
    }
    await within(10_000, replay.mounted!.mount.closed)
    for (const session of [...replay.sessions, replay.session]) checkSession(t, session)
  } finally {
    await replay.end(t)
  }
}

/** Scenarios for which the counts of real rings say more: a beginning and an end, and FORGETs. */
const ON_RINGS = ['s1', 's10']

for (const scenario of SCENARIOS) {
  for (const kind of ON_RINGS.includes(scenario.name) ? ['emulated', 'threaded'] as const : ['emulated'] as const) {
    t.test(`${scenario.name}: ${scenario.title} (${kind} device)`, options, t => replayScenario(t, scenario, kind))
  }
}

t.test('INIT offers what Linux 6.12 offers, but for what has no meaning here', options, async t => {
  const replay = new Replay('emulated')
  try {
    await replay.mount()
    const { args } = replay.recording.requests()[0]!
    const [major, minor, maxReadahead] = [0, 4, 8].map(at => args.readUInt32LE(at))
    t.equal(major, 7)
    t.equal(maxReadahead, 131072)
    const offered = initFlagNames(args.readUInt32LE(12), args.readUInt32LE(16))
    const linux = initFlagNames(...INIT_6_12)
    if (minor! >= 41) t.strictSame(linux.filter(flag => !offered.includes(flag)).sort(), Object.keys(NOT_OFFERED).sort())
    t.strictSame(offered.filter(flag => flag in NOT_OFFERED), [])
    t.strictSame(offered.filter(flag => !linux.includes(flag) && minor! <= 41), [], 'and nothing more')
  } finally {
    await replay.end(t)
  }
})

t.test('s4: what cannot be mounted', options, async t => {
  const { mount } = await import('../../lib/index.js')
  using bench = new Bench()
  // there a tag is looked for among the devices of the machine (EINVAL for any that is not there); here a source names a device
  await t.rejects(mount({ source: 'nosuchtag', mountpoint: bench.dir }), { code: 'ENOENT', message: /no such directory or socket/ })
  await t.rejects(mount({ source: '', mountpoint: bench.dir }), { code: 'EINVAL', message: 'the source is empty' })
})

t.test('s7: two devices with two tags, and with the same tag', options, async t => {
  const one = new Replay('emulated')
  const other = new Bench()
  try {
    await one.mount()
    const { handlers, directory } = other.serve()
    const recording = new Recording()
    const mounted = await mountDevice(new EmulatedTransport(`${one.tag}-2`, 1, recording.wrap(handlers, directory)), other.dir)
    fs.readdirSync(other.dir)
    await t.rejects(mountDevice(new EmulatedTransport(one.tag, 1, other.serve().handlers), one.second), { code: 'EEXIST' }, 'the second device of a tag is refused')
    fs.readdirSync(one.bench.dir)
    await one.mounted!.mount.unmount()
    fs.readdirSync(other.dir)
    await mounted.mount.unmount()
    checkSession(t, one.session)
    checkSession(t, { recording, mounted })
    t.notOk(recording.requests().some(request => one.recording.requests().includes(request)))
  } finally {
    await one.end(t)
    await clearMount(other.dir)
    other[Symbol.dispose]()
  }
})

t.test('s8: the device dies with a read in flight: where Linux hangs, callers get errors', options, async t => {
  const replay = new Replay('threaded')
  try {
    await replay.mount()
    const device = replay.mounted!.fs.transport as ThreadedDevice
    const { mount } = replay.mounted!
    device.hold('READ')
    const reading = fs.promises.readFile(replay.path('big.bin')).catch((error: NodeJS.ErrnoException) => error.code)
    while (device.holding === 0) await sleep(2)
    const gone = once(mount, 'gone')
    await device.die()
    t.match(await within(5000, reading), /^(EIO|ENOTCONN)$/, 'the read ends')
    await within(5000, gone)
    t.throws(() => fs.statSync(replay.path('hello.txt')), { code: 'ENOTCONN' })
    await within(10_000, mount.unmount())
    t.notOk(replay.recording.requests().some(request => request.op === 'DESTROY'), 'a dead device is not sent DESTROY')
    await replay.mount()
    cat(replay.path('hello.txt'))
    await replay.mounted!.mount.unmount()
    checkSession(t, replay.session)
  } finally {
    await replay.end(t)
  }
})

t.test('s9: the driver is taken from the device under a mount, and given back', options, async t => {
  const replay = new Replay('threaded')
  try {
    await replay.mount()
    replay.mounted!.fs.remove('unbound')
    // the queues' threads hear of it a moment later
    for (let tries = 0; tries < 1000 && (await fs.promises.stat(replay.bench.dir).catch(error => error)).code !== 'ENOTCONN'; tries++) await sleep(2)
    t.throws(() => cat(replay.path('hello.txt')), { code: 'ENOTCONN' })
    await within(10_000, replay.mounted!.mount.unmount())
    t.notOk(replay.recording.requests().some(request => request.op === 'DESTROY'), 'no DESTROY, as Linux')
    await replay.mount()
    await play(t, replay, { does: 'cat hello.txt', linux: 'LOOKUP:hello.txt OPEN READ FLUSH RELEASE' }, new Set())
    await play(t, replay, { does: 'umount', linux: 'DESTROY' }, new Set())
  } finally {
    await replay.end(t)
  }
})
