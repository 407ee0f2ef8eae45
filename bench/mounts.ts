/** Waiting for a mount, and getting rid of it whatever its server does. */
import { readFileSync, writeFileSync } from 'node:fs'
import { run, sleep, type Server } from './processes.js'

interface MountEntry {
  /** Minor of its device: the number of a FUSE connection. */
  minor: number
}

/** The topmost mount at a directory, from /proc/self/mountinfo; asks no server. */
export function findMount(directory: string): MountEntry | undefined {
  let found: MountEntry | undefined
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ')
    if (fields[4] === directory) found = { minor: Number(fields[2]!.split(':')[1]) }
  }
  return found
}

/** Waits until a mount is listed and a stat of it answers. @throws Error when it does not, saying why */
export async function waitForMount(directory: string, server: Server, timeoutMs: number): Promise<void> {
  const endMs = performance.now() + timeoutMs
  while (!findMount(directory)) {
    if (!server.alive) throw new Error(`ended: ${server.lastWords()}`)
    if (performance.now() > endMs) throw new Error(`not mounted after ${timeoutMs / 1000} s: ${server.lastWords()}`)
    await sleep(10)
  }
  // by another process: a stat that hangs would hang us
  await run(['stat', '-t', directory], timeoutMs)
}

/** Unmounts, by force if need be. Never hangs. */
export async function unmount(directory: string): Promise<void> {
  for (let tries = 0; findMount(directory) && tries < 3; tries++) {
    await run(['umount', directory], 5000).catch(() => undefined)
    const left = findMount(directory)
    if (!left) return
    abort(left.minor)
    await run(['umount', '-l', directory], 5000).catch(() => undefined)
  }
}

/** Aborts the FUSE connection: callers stuck in it get ECONNABORTED. */
function abort(minor: number): void {
  try {
    writeFileSync(`/sys/fs/fuse/connections/${minor}/abort`, '1')
  } catch {
    // no such connection, or the control file system is not mounted: umount -l has to do
  }
}
