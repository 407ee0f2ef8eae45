/** A mount for the length of a function: for scripted tests. */
import { mkdtempSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FaultControl } from '../device/faults.js'
import type { ServedDevice } from '../device/serve.js'
import { errno, SyscallError, UsageError } from '../errors.js'
import { Guard } from './guard.js'
import { mount, type Mount, type MountRequest } from './mount.js'
import type { MountOptions } from './options.js'
import { parseSource } from './source.js'

/** What is done with a mount: `dir` is where it is mounted. */
export type MountBody<T> = (dir: string, mounted: Mount) => T | Promise<T>

async function clearAway(dir: string, guard: Guard): Promise<void> {
  try {
    rmdirSync(dir)
  } catch {
    return await guard.dismiss({ unmount: true })
  }
  await guard.dismiss()
}

/** @returns whether somebody still used it */
async function endMount(mounted: Mount): Promise<boolean> {
  try {
    await mounted.unmount()
    return false
  } catch (error) {
    if (!(error instanceof SyscallError && error.errno === errno.EBUSY)) throw error
    await mounted.unmount({ abort: true })
    return true
  }
}

/**
 * Mounts a device on a directory of its own, calls `body`, and unmounts, whatever happens: when
 * `body` throws, when it leaves files open, and when this process is killed. A device in this
 * process fails on demand: `mounted.faults`. Options of the mount may stand before `body`.
 *
 * @param source as for `mount`
 * @returns what `body` returns
 * @throws what `mount` and `body` throw; UsageError (EBUSY) when `body` has left something in use, which gets errors from then on
 *
 * @example
 * const names = await withMount('/srv/shared', { xattr: true }, async (dir, mounted) => {
 *   await writeFile(`${dir}/hello.txt`, 'hello')
 *   mounted.faults.failNext('UNLINK', 'EIO')
 *   await assert.rejects(unlink(`${dir}/hello.txt`), { code: 'EIO' })
 *   return await readdir(dir)
 * })
 * assert.deepEqual(names, ['hello.txt'])
 */
export async function withMount<T>(source: string | ServedDevice, body: MountBody<T>): Promise<T>
export async function withMount<T>(source: string | ServedDevice, options: MountOptions, body: MountBody<T>): Promise<T>
export async function withMount<T>(source: string | ServedDevice, ...rest: [MountBody<T>] | [MountOptions, MountBody<T>]): Promise<T> {
  const [options, body] = rest.length === 1 ? [{}, rest[0]] : rest
  const { kind } = parseSource(source, options)
  const ours = options.via !== 'fuse-native' && (kind === 'served' || (kind === 'directory' && options.backend === undefined))
  const dir = mkdtempSync(join(tmpdir(), 'virtiofs-bridge-'))
  const guard = Guard.ofDirectory(dir)
  try {
    const request = { source, mountpoint: dir, options, ...ours && { faults: new FaultControl() } }
    const mounted = await mount(request as MountRequest)
    let done: T
    try {
      done = await body(dir, mounted)
    } catch (error) {
      await endMount(mounted).catch(() => mounted.abort())
      throw error
    }
    if (await endMount(mounted)) throw new UsageError(`something of ${dir} was still in use: a file that is open, or the working directory of a process`, 'EBUSY')
    return done
  } finally {
    await clearAway(dir, guard)
  }
}
