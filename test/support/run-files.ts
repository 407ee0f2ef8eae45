/**
 * Runs test files as one stream of tap, each in a process of its own: two at a time, and then those that have to be
 * alone.
 *
 *     node dist/test/support/run-files.js FILE...
 *
 * What runs at the same time shares no mount: there are two lanes, each with a mount namespace, and with a runtime
 * directory for what is live. (A sandbox of virtiofsd that starts in the same namespace keeps a copy of every mount
 * for a moment, and so an unmounted one of another test alive.)
 *
 * tap is used as a library here: `tap run` puts hooks for coverage and mocks into each process and each of its threads,
 * where they take most of the time of a test that starts a device in its own process.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { t } from 'tap'
import { MountNamespace } from './mount-namespace.js'
import { noKernel } from './peers.js'

/** For a file, in seconds. */
const TIMEOUT_S = 600
const LANES = 2

/** Files that nothing may run beside, and why. */
const ALONE: Readonly<Record<string, string>> = {
  'kernel/connection-numbers': 'the kernel gives the lowest free number of a connection to whoever mounts next',
  'kernel/demo': 'it builds: dist/ is written',
  'kernel/forgets': 'it makes the kernel drop all inodes, of every mount',
  'kernel/linux-traces': 'it makes the kernel drop all inodes, and counts requests that come a few milliseconds later',
  'kernel/low-latency': 'it looks whether anybody at all keeps the processors awake',
}
/** The longest ones, in the order in which they start: others fill what they leave of the time. */
const FIRST = ['posix/posix', 'kernel/cycles', 'kernel/data']

/** `SUITE/NAME` of a compiled file. */
function nameOf(file: string): string {
  return file.split('/').slice(-2).join('/').replace(/\.test\.js$/, '')
}

/** Where files run one after the other. */
class Lane {
  readonly #runtime: string
  readonly #namespace: MountNamespace | undefined
  readonly #before: ReadonlySet<string>

  private constructor(runtime: string, namespace?: MountNamespace) {
    this.#runtime = runtime
    this.#namespace = namespace
    this.#before = new Set(this.#mountpoints)
  }

  static async open(index: number): Promise<Lane> {
    const all = process.env['XDG_RUNTIME_DIR']
    const runtime = all === undefined ? mkdtempSync(join(tmpdir(), 'vfb-run-')) : join(all, `lane-${index}`)
    mkdirSync(runtime, { recursive: true, mode: 0o700 })
    return new Lane(runtime, noKernel() === false ? await MountNamespace.create() : undefined)
  }

  get #mountpoints(): string[] {
    return this.#namespace?.mounts().map(({ mountpoint }) => mountpoint) ?? []
  }

  async run(file: string, buffered: boolean): Promise<void> {
    const inside = this.#namespace ? [...this.#namespace.prefix, 'env', `--chdir=${process.cwd()}`] : []
    const [command, ...args] = [...inside, process.execPath, '--enable-source-maps', file]
    await t.spawn(command!, args, {
      name: file, buffered, timeout: TIMEOUT_S * 1000, at: null, stack: '',
      env: { ...process.env, TAP_TIMEOUT: String(TIMEOUT_S), XDG_RUNTIME_DIR: this.#runtime },
    })
  }

  /** Ends the namespace, and with it what is still mounted there. @returns where that is */
  async close(): Promise<string[]> {
    const left = this.#mountpoints.filter(path => !this.#before.has(path))
    await this.#namespace?.end()
    // it was made here
    if (process.env['XDG_RUNTIME_DIR'] === undefined) rmSync(this.#runtime, { recursive: true })
    return left
  }
}

// how long all of them may take is up to who runs this
t.setTimeout(0)
t.jobs = LANES

const files = process.argv.slice(2).map(file => relative(process.cwd(), file))
const [alone, together] = [true, false].map(is => files.filter(file => nameOf(file) in ALONE === is)) as [string[], string[]]
const place = (file: string): number => FIRST.includes(nameOf(file)) ? FIRST.indexOf(nameOf(file)) : FIRST.length
together.sort((a, b) => place(a) - place(b))

const lanes = await Promise.all(Array.from({ length: LANES }, (_, i) => Lane.open(i)))
await Promise.all(lanes.map(async lane => {
  for (let file = together.shift(); file !== undefined; file = together.shift()) await lane.run(file, true)
}))
for (const file of alone) await lanes[0]!.run(file, false)
for (const lane of lanes) for (const path of await lane.close()) t.fail(`left mounted: ${path}`)
