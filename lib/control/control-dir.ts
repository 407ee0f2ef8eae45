/** Where the control sockets of this user's mounts are: PID-NUMBER, one per mount. */
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { runtimeDir } from '../mount/runtime-dir.js'

export function controlDir(): string {
  const path = join(runtimeDir(), 'control')
  mkdirSync(path, { recursive: true, mode: 0o700 })
  return path
}

/** Every socket that is there, also of processes that have died; not those that are being made. */
export function controlSockets(): string[] {
  const dir = controlDir()
  return readdirSync(dir).filter(name => !name.startsWith('.')).map(name => join(dir, name))
}

/** Removes those of a process that has died. */
export function removeSockets(pid: number): void {
  const dir = controlDir()
  for (const name of readdirSync(dir)) if (name.replace(/^\./, '').startsWith(`${pid}-`)) rmSync(join(dir, name), { force: true })
}
