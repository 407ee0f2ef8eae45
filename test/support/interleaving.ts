/**
 * A seeded scheduler: the main thread, the queue workers, a device and a kernel in one thread, whose
 * steps come in an order that the seed decides. The driver's code is the real one, on real rings,
 * eventfds and epoll sets; what the steps are is in stepped-*.ts.
 *
 * A run has one to three mounts of the same tag, each with a script of things that happen to it. It
 * is over when everything has ended; when nobody can do anything and it is not, something hangs.
 */
import { errno } from '../../lib/errors.js'
import { instances } from '../../lib/driver/virtio-fs.js'
import { WorkerHandle } from '../../lib/driver/worker-handle.js'
import type { Mount } from '../../lib/mount/live-mount.js'
import { mountDevice } from '../../lib/mount/mount-device.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { close, createEventfd } from '../../lib/sys/io.js'
import { SeededRandom } from './seeded-random.js'
import { SteppedDevice } from './stepped-device.js'
import { SteppedKernel } from './stepped-kernel.js'
import { SteppedThread } from './stepped-thread.js'

const TAG = 'stepped'
/** Tells the deadlines of the driver from everybody else's timers. */
const DEADLINE_MS = 7_654_321
/** More steps than any run needs. */
const STEP_LIMIT = 20_000

const ENDINGS = ['umount', 'lazy umount', 'our unmount', 'our lazy unmount', 'our unmount by abort', 'abort'] as const
const TROUBLES = ['device dies', 'device stops', 'ring breaks', 'worker fails', 'worker vanishes', 'mount fails'] as const
type Happening = typeof ENDINGS[number] | typeof TROUBLES[number] | 'next mount'

/** What a run was, for the sum over all of them. */
export interface Run {
  steps: number
  mounts: number
  happenings: Happening[]
  answers: number
}

/** The deadlines of the driver: they pass when nothing else can happen. */
class Deadlines {
  readonly #pending = new Map<object, () => void>()
  readonly #setTimeout = globalThis.setTimeout
  readonly #clearTimeout = globalThis.clearTimeout

  constructor() {
    const pending = this.#pending
    globalThis.setTimeout = ((callback: () => void, ms?: number, ...rest: []) => {
      if (ms !== DEADLINE_MS) return this.#setTimeout(callback, ms, ...rest)
      const timer = {}
      pending.set(timer, callback)
      return timer
    }) as typeof setTimeout
    globalThis.clearTimeout = (timer => {
      if (!pending.delete(timer as object)) this.#clearTimeout(timer)
    }) as typeof clearTimeout
  }

  get count(): number {
    return this.#pending.size
  }

  pass(): void {
    const [timer, callback] = this.#pending.entries().next().value!
    this.#pending.delete(timer)
    callback()
  }

  restore(): void {
    globalThis.setTimeout = this.#setTimeout
    globalThis.clearTimeout = this.#clearTimeout
  }
}

interface Actor {
  name: string
  /** @returns false when there is nothing to do */
  step: () => boolean
  /** The main thread goes on by itself then. */
  main: boolean
  /** Callers may have been answered, rules been broken. */
  replies: boolean
}

/** One mount of the device, from its beginning to its end. */
class Session {
  readonly device: SteppedDevice
  readonly threads: SteppedThread[] = []
  readonly troubles = new Set<Happening>()
  kernel: SteppedKernel | undefined
  mount: Mount | undefined
  error: Error | undefined
  ended = false
  live = true
  calls: number
  mounting: (() => void)[] = []
  /** What happens to it, and after how many steps. */
  readonly script: { at: number, what: Happening }[] = []

  constructor(readonly index: number, random: SeededRandom, readonly violations: string[]) {
    const queues = random.between(1, 2)
    for (let i = 0; i < queues; i++) this.threads.push(new SteppedThread(() => this.kernel?.abort()))
    this.calls = random.between(0, 12)
    this.device = new SteppedDevice(TAG, queues, { indirectDesc: random.below(2) === 1, eventIdx: random.below(2) === 1 }, random, violations)
    const happens = (what: Happening): void => {
      this.script.push({ at: random.below(random.below(2) === 0 ? 40 : 250), what })
    }
    happens(ENDINGS[random.below(ENDINGS.length)]!)
    if (random.below(3) > 0) happens(TROUBLES[random.below(TROUBLES.length)]!)
    if (random.below(8) === 0) happens(TROUBLES[random.below(TROUBLES.length)]!)
    if (index < 2 && random.below(3) === 0) happens('next mount')
    this.script.sort((a, b) => a.at - b.at)
    void mountDevice({
      source: 'stepped', transport: this.device, init: { defaultPermissions: true, passthrough: false }, queues, queueSize: random.below(2) === 0 ? 4 : 8, pollUs: 0, timeoutMs: DEADLINE_MS, traceJson: undefined, largeBuffers: 3,
      live: { describe: () => {}, unmounted: () => {}, release: () => { this.live = false } },
      worker: new WorkerHandle(0, () => this.threads[0]!), newWorker: i => new WorkerHandle(i, () => this.threads[i]!),
      hostMount: count => new Promise((resolve, reject) => {
        this.mounting.push(() => {
          if (this.troubles.has('mount fails')) reject(new Error('mount: EPERM'))
          else resolve(this.kernel = new SteppedKernel(count, random, violations))
        })
      }),
    }).then(async mount => {
      this.mount = mount
      if (mount.gone !== '') violations.push(`mounted, though the device is gone: ${mount.gone}`)
      await mount.closed
      this.ended = true
    }).catch((error: Error) => {
      this.error = error
      this.ended = true
    })
  }

  /** Whether the device and every thread did as they should, all the time. */
  get calm(): boolean {
    return this.troubles.size === 0
  }

  /** The device cannot be waited for. */
  get stuck(): boolean {
    return this.device.life === 'stopped'
  }
}

/** Runs one interleaving. @throws Error when something is wrong, with everything that happened */
export async function interleave(seed: number): Promise<Run> {
  const world = new World(seed)
  try {
    await world.run()
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}\n  ${world.history.slice(-400).join('\n  ')}`)
  } finally {
    world.close()
  }
  return world.summary
}

class World {
  readonly history: string[] = []
  readonly #random: SeededRandom
  readonly #deadlines = new Deadlines()
  readonly #sessions: Session[] = []
  readonly #violations: string[] = []
  readonly #lowestFd = lowestFd()
  #steps = 0
  readonly #actors: Actor[] = []
  readonly #happened: Happening[] = []

  constructor(seed: number) {
    this.#random = new SeededRandom(Math.imul(seed, 2654435761))
  }

  get summary(): Run {
    let answers = 0
    for (const { kernel } of this.#sessions) if (kernel) for (const count of kernel.errors.values()) answers += count
    return { steps: this.#steps, mounts: this.#sessions.length, happenings: this.#happened, answers }
  }

  async run(): Promise<void> {
    this.#begin()
    await settled()
    while (this.#sessions.some(session => !session.ended || session.script.length > 0)) {
      if (this.#steps++ > STEP_LIMIT) throw new Error(`not over after ${STEP_LIMIT} steps`)
      if (await this.#happen(false) || await this.#stepAnyone()) continue
      this.#nothingWaits()
      if (await this.#happen(true) || await this.#endIt()) continue
      throw new Error(`nobody can do anything, and it is not over: ${this.#sessions.map(describe).join('; ')}`)
    }
    // what is still on its way when everything has ended
    while (await this.#stepAnyone()) this.#steps++
    for (const session of this.#sessions) this.#checkEnd(session)
    this.#check(this.#deadlines.count === 0, `${this.#deadlines.count} timers are left`)
    this.#check(instances.find(TAG) === undefined, 'the tag is left')
    for (const { device } of this.#sessions) device.end()
    this.#check(lowestFd() === this.#lowestFd, 'a descriptor is left')
  }

  close(): void {
    this.#deadlines.restore()
  }

  #check(good: boolean, what: string): void {
    if (!good) throw new Error(what)
  }

  #begin(): void {
    const session = new Session(this.#sessions.length, this.#random, this.#violations)
    this.#sessions.push(session)
    this.#enlist(session)
  }

  /** One step of somebody who has something to do, whoever the seed picks. @returns false when nobody has */
  async #stepAnyone(): Promise<boolean> {
    const actors = this.#actors
    for (let left = actors.length; left > 0; left--) {
      const i = this.#random.below(left)
      const actor = actors[i]!
      actors[i] = actors[left - 1]!
      actors[left - 1] = actor
      if (!actor.step()) continue
      this.history.push(actor.name)
      if (actor.main) await settled()
      if (actor.replies) this.#look()
      return true
    }
    return false
  }

  /** Everybody who does something in the session, one step at a time. */
  #enlist(session: Session): void {
    const { index, device } = session
    const add = (name: string, step: () => boolean, more: { main?: boolean, replies?: boolean } = {}): void => {
      this.#actors.push({ name: `${index}: ${name}`, step, main: more.main ?? false, replies: more.replies ?? false })
    }
    for (const [i, thread] of session.threads.entries()) {
      add(`worker ${i}`, () => thread.step(), { replies: true })
      add(`main hears worker ${i}`, () => thread.deliver(), { main: true })
    }
    add('device takes', () => device.take(), { replies: true })
    add('device answers', () => device.answer())
    add('device on its socket', () => run(device.exchanges), { main: true })
    add('device scribbles', () => device.unsound && this.#random.below(4) === 0 && (device.scribble(), true))
    add('mount(2) returns', () => run(session.mounting), { main: true })
    add('umount(2) returns', () => session.kernel !== undefined && run(session.kernel.pending), { main: true })
    add('a caller calls', () => session.calls > 0 && session.kernel !== undefined && session.kernel.call() && session.calls-- > 0)
  }

  #look(): void {
    for (const { kernel } of this.#sessions) if (kernel && !kernel.closed) kernel.collect()
    if (this.#violations.length > 0) throw new Error(this.#violations.join('; '))
  }

  /** The next thing of a script. @param now even if its time has not come */
  async #happen(now: boolean): Promise<boolean> {
    const session = this.#sessions.find(({ script }) => script.length > 0 && (now || script[0]!.at <= this.#steps))
    if (!session) return false
    const { what } = session.script.shift()!
    if (this.#let(session, what)) {
      this.history.push(`${session.index}: *** ${what}`)
      this.#happened.push(what)
    }
    await settled()
    this.#look()
    return true
  }

  /** @returns false when it cannot happen now */
  #let(session: Session, what: Happening): boolean {
    const { kernel, device, mount, threads } = session
    switch (what) {
      case 'umount': return kernel !== undefined && !kernel.closed && kernel.umount(false) === 0
      case 'lazy umount': return kernel !== undefined && !kernel.closed && kernel.umount(true) === 0
      case 'abort':
        kernel?.abort()
        return kernel !== undefined
      case 'our unmount': case 'our lazy unmount': case 'our unmount by abort':
        mount?.unmount({ lazy: what === 'our lazy unmount', abort: what === 'our unmount by abort' }).catch(error => {
          if ((error as NodeJS.ErrnoException).errno !== errno.EBUSY) this.#violations.push(`unmount: ${(error as Error).message}`)
        })
        return mount !== undefined
      case 'next mount':
        // live-tags.ts keeps two live mounts of one tag apart
        if (this.#sessions.some(({ live }) => live)) return false
        this.#begin()
        return true
      case 'device dies': device.die(); break
      case 'device stops': device.freeze(); break
      case 'ring breaks': if (!device.breakRing()) return false; break
      case 'worker fails': case 'worker vanishes': {
        const thread = threads[this.#random.below(threads.length)]!
        if (thread.state === 'loading' || thread.state === 'ended') return false
        thread.trouble(what === 'worker fails' ? 'fails' : 'vanishes')
        // it has to be awake for that
        while (thread.state === 'asleep' && thread.step());
        break
      }
      case 'mount fails': if (session.mounting.length === 0) return false; break
    }
    session.troubles.add(what)
    return true
  }

  /** When nobody can do anything, no caller may wait, but for a device that has stopped. */
  #nothingWaits(): void {
    for (const session of this.#sessions) {
      const { kernel } = session
      if (!kernel || kernel.dead || kernel.closed || session.stuck) continue
      this.#check(kernel.outstanding.size === 0, `callers wait for ever: ${[...kernel.outstanding].map(([unique, opcode]) => `${unique} (opcode ${opcode})`).join(', ')}; ${describe(session)}`)
    }
  }

  /** Ends what does not end by itself: a deadline passes, or somebody unmounts. */
  async #endIt(): Promise<boolean> {
    if (this.#deadlines.count > 0) {
      this.#check(this.#sessions.some(({ stuck }) => stuck), `a deadline has to pass, though no device has stopped: ${this.#sessions.map(describe).join('; ')}`)
      this.history.push('*** a deadline passes')
      this.#deadlines.pass()
      await settled()
      return true
    }
    const session = this.#sessions.find(({ kernel }) => kernel && !kernel.dead)
    if (!session) return false
    this.history.push(`${session.index}: *** unmounted at the end`)
    if (!session.kernel!.mounted || session.kernel!.umount(false) < 0) {
      this.#check(session.stuck, `the mount is in use for ever: ${describe(session)}`)
      session.kernel!.abort()
    }
    return true
  }

  #checkEnd(session: Session): void {
    const { device, kernel, threads, error } = session
    const says = describe(session)
    this.#check(!session.live, `the tag was not released: ${says}`)
    this.#check(device.closed && threads.every(({ state, used }) => state === 'ended' || !used) && (kernel?.closed ?? true), `not everything was freed: ${says}`)
    if (kernel) for (const number of kernel.errors.keys()) {
      if (number === 0 || number === -errno.ENOENT) continue
      this.#check(!session.calm && (number === -errno.EIO || number === -errno.ENOTCONN), `a caller got error ${number}: ${says}`)
    }
    const sent = Array.from({ length: kernel?.forgotten ?? 0 }, (_, i) => 1000 + i)
    this.#check(new Set(device.forgotten).size === device.forgotten.length && device.forgotten.every(node => sent.includes(node)), `FORGETs ${device.forgotten.join()} of ${sent.join()}: ${says}`)
    if (threads.length === 1) this.#check(device.forgotten.every((node, i) => i === 0 || node > device.forgotten[i - 1]!), `FORGETs in another order: ${device.forgotten.join()}`)
    if (!session.calm) return
    this.#check(device.destroyed === device.seen.includes(Op.INIT), `DESTROY ${device.destroyed ? '' : 'not '}sent: ${says}`)
    this.#check(device.stopped || device.seen.length === 0, `the rings were not stopped: ${says}`)
    this.#check(error === undefined || /unmounted before|worker/.test(error.message), `mount: ${error?.message}`)
  }
}

function describe({ index, device, kernel, threads, mount, error, ended }: Session): string {
  return `mount ${index}: ${ended ? 'ended' : mount ? 'mounted' : 'mounting'}${error ? ` (${error.message})` : ''}, device ${device.life}, `
    + `kernel ${kernel === undefined ? 'none' : kernel.closed ? 'closed' : kernel.dead ? 'dead' : kernel.mounted ? 'mounted' : 'detached'}, workers ${threads.map(({ state }) => state).join()}`
}

function run(all: (() => void)[]): boolean {
  const next = all.shift()
  next?.()
  return next !== undefined
}

/** The descriptor that would be opened next: a higher one than before when one is left. */
function lowestFd(): number {
  const fd = createEventfd()
  close(fd)
  return fd
}

/** After everything that the main thread does by itself. */
function settled(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
