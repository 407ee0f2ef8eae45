/**
 * A mount for the posix checks: the command in the foreground as a child, its directories, and an
 * end by pid that cannot hang. Nothing here calls into the mount itself.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { findMount, FS_TYPE } from '../../lib/mount/mountinfo.js'

const COMMAND = fileURLToPath(new URL('../../command/virtiofs-bridge.js', import.meta.url))
const START_MS = 15_000
const END_MS = 10_000

export interface PosixMount {
  /** Where the files really are. */
  backing: string
  mountpoint: string
  /** Ends what is stuck in it: everybody gets an error. */
  abort: () => void
  /** Unmounts, waits for the command to end, removes both directories. @throws when that needed force */
  end: () => Promise<void>
}

/** When a child has ended: its exit code, or its signal. */
export function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? signal!))
  })
}

/** A promise's value, or undefined when it is not there in time. */
export async function inTime<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const late = new AbortController()
  const timer = sleep(ms, undefined, { signal: late.signal }).catch(() => undefined)
  const value = await Promise.race([promise, timer])
  late.abort()
  return value
}

/** A new directory that every user can reach. */
export function makeDirectory(parent: string): string {
  const dir = mkdtempSync(join(parent, 'virtiofs-posix-'))
  chmodSync(dir, 0o755)
  return dir
}

/** Where each thread of a process waits in the kernel. */
export function waitsOf(pid: number): string {
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'utf8').trim()
    } catch (error) {
      return (error as Error).message
    }
  }
  const threads = readdirSync(`/proc/${pid}/task`)
  return threads.map(thread => `thread ${thread}: ${read(`/proc/${pid}/task/${thread}/wchan`)}\n${read(`/proc/${pid}/task/${thread}/stack`)}`).join('\n')
}

/**
 * Mounts a new directory.
 *
 * @param parent where the directory that holds the files is made: its file system is what is mounted
 * @param options for `-o`
 * @param sourceOf what to mount for that directory, if not the directory itself
 * @throws Error with what the command said
 */
export async function mountDirectory(parent: string, options: string, sourceOf = (backing: string) => backing): Promise<PosixMount> {
  const base = makeDirectory(parent)
  const backing = join(base, 'shared')
  const mountpoint = join(base, 'mount')
  mkdirSync(backing)
  mkdirSync(mountpoint)
  const child = spawn(process.execPath, [COMMAND, sourceOf(backing), mountpoint, '-f', '-o', options], { stdio: ['ignore', 'ignore', 'pipe'] })
  const exit = ended(child)
  let said = ''
  let over = false
  child.stderr!.on('data', chunk => { said += chunk })
  void exit.then(() => { over = true }, () => { over = true })

  // what is mounted has no answer to INIT yet: the first call into it waits for that
  const deadline = performance.now() + START_MS
  while (findMount(mountpoint)?.type !== FS_TYPE) {
    if (over || performance.now() > deadline) {
      child.kill('SIGKILL')
      rmSync(base, { recursive: true })
      throw new Error(`mount with ${options}: ${said || 'not there in time'}`)
    }
    await sleep(10)
  }

  const connection = findMount(mountpoint)!.minor
  const abort = (): void => {
    try {
      writeFileSync(`/sys/fs/fuse/connections/${connection}/abort`, '1')
    } catch {
      // it has ended meanwhile
    }
  }
  const umount = async (...flags: string[]): Promise<boolean> => {
    const program = spawn('umount', [...flags, mountpoint], { stdio: ['ignore', 'ignore', 'pipe'] })
    program.stderr.on('data', chunk => { said += chunk })
    const code = await inTime(ended(program), END_MS)
    if (code === undefined) program.kill('SIGKILL')
    return code === 0
  }
  const end = async (): Promise<void> => {
    const clean = await umount() && await inTime(exit, END_MS) !== undefined
    if (!clean) {
      abort()
      await umount('-l')
      child.kill('SIGKILL')
      await inTime(exit, END_MS)
    }
    rmSync(base, { recursive: true })
    if (!clean) throw new Error(`mount with ${options}: ended by force: ${said}`)
    if (await exit !== 0) throw new Error(`mount with ${options}: exit ${await exit}: ${said}`)
  }
  return { backing, mountpoint, abort, end }
}
