/** Directories of single mounts in the runtime directory. */
import { closeSync, constants, fstatSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { flock, LOCK_EX, LOCK_NB } from '../sys/lock.js'
import { runtimeDir } from './runtime-dir.js'

const PRIVATE = 'm-'

/** A directory of its own inside, for one mount; its owner has it locked. */
export function privateDir(): { path: string, remove: () => void } {
  const base = runtimeDir()
  removeLeftOver(base)
  const path = mkdtempSync(join(base, PRIVATE))
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  flock(fd, LOCK_EX | LOCK_NB)
  return {
    path,
    remove: () => {
      rmSync(path, { recursive: true, force: true })
      closeSync(fd)
    },
  }
}

/** How long a new directory may be without its lock, in milliseconds. */
const NEW_MS = 10_000

/** Removes the directories of processes that have died. */
function removeLeftOver(base: string): void {
  for (const name of readdirSync(base)) {
    if (!name.startsWith(PRIVATE)) continue
    const path = join(base, name)
    let fd
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
      if (flock(fd, LOCK_EX | LOCK_NB) === 0 && Date.now() - fstatSync(fd).ctimeMs > NEW_MS) rmSync(path, { recursive: true, force: true })
    } catch {
      // somebody else has removed it
    } finally {
      if (fd !== undefined) closeSync(fd)
    }
  }
}
