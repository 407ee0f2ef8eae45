/** The private directory for sockets: 0700, in the place where the system wants such things. */
import { accessSync, chmodSync, closeSync, constants, fstatSync, lstatSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { UsageError } from '../errors.js'
import { flock, LOCK_EX, LOCK_NB } from '../sys/lock.js'

/** Root of a user namespace has no right to /run, and a variable inherited from another user names a directory of theirs. */
function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** This user's number outside of any user namespace: each of them has a root. */
function outerUid(uid: number): number {
  for (const line of readFileSync('/proc/self/uid_map', 'latin1').split('\n')) {
    const [inside, outside, count] = line.trim().split(/\s+/).map(Number)
    if (uid >= inside! && uid < inside! + count!) return outside! + uid - inside!
  }
  return uid
}

/** @throws UsageError when somebody else owns it */
export function runtimeDir(): string {
  const uid = process.getuid!()
  const places = [process.env['XDG_RUNTIME_DIR'], uid === 0 ? '/run' : undefined]
  const base = places.find(place => place !== undefined && place !== '' && isWritable(place)) ?? tmpdir()
  const path = join(base, base === tmpdir() ? `virtiofs-bridge-${outerUid(uid)}` : 'virtiofs-bridge')
  mkdirSync(path, { recursive: true, mode: 0o700 })
  const stat = lstatSync(path)
  if (!stat.isDirectory() || stat.uid !== uid) throw new UsageError(`runtime directory ${path} is not a directory of ours`)
  if ((stat.mode & 0o777) !== 0o700) chmodSync(path, 0o700)
  return path
}

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
