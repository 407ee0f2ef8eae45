/** The private directory for sockets: 0700, in the place where the system wants such things. */
import { accessSync, chmodSync, constants, lstatSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { UsageError } from '../errors.js'

/** Root of a user namespace has no right to /run, and a variable inherited from another user names a directory of theirs. */
function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK)
    return statSync(path).isDirectory()
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

/** What systemd makes for a login, and removes at its end. */
const OF_LOGIN = /^\/run\/user\/\d+\/*$/

/**
 * Where to look, the best first. A login of root has a directory that a mount from /etc/fstab or by
 * sudo does not have: each must find the other's mounts, and they outlive the login.
 *
 * @param wanted $XDG_RUNTIME_DIR
 */
export function runtimePlaces(uid: number, wanted: string | undefined): string[] {
  const own = wanted === undefined || wanted === '' ? [] : [wanted]
  if (uid !== 0) return own
  return OF_LOGIN.test(own[0] ?? '') ? ['/run', ...own] : [...own, '/run']
}

/** @throws UsageError when somebody else owns it */
export function runtimeDir(): string {
  const uid = process.getuid!()
  const places = runtimePlaces(uid, process.env['XDG_RUNTIME_DIR'])
  const base = places.find(isWritable) ?? tmpdir()
  const path = join(base, base === tmpdir() ? `virtiofs-bridge-${outerUid(uid)}` : 'virtiofs-bridge')
  try {
    // not `recursive`: Node tries for ever where nothing can be made, as in /proc
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const stat = lstatSync(path)
  if (!stat.isDirectory() || stat.uid !== uid) throw new UsageError(`runtime directory ${path} is not a directory of ours`)
  if ((stat.mode & 0o777) !== 0o700) chmodSync(path, 0o700)
  return path
}
