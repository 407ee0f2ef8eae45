/** The private directory for sockets: 0700, in the place where the system wants such things. */
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { UsageError } from '../errors.js'

/** @throws UsageError when somebody else owns it */
export function runtimeDir(): string {
  const uid = process.getuid!()
  const base = process.env['XDG_RUNTIME_DIR'] || (uid === 0 ? '/run' : tmpdir())
  const path = join(base, base === tmpdir() ? `virtiofs-bridge-${uid}` : 'virtiofs-bridge')
  mkdirSync(path, { recursive: true, mode: 0o700 })
  const stat = lstatSync(path)
  if (!stat.isDirectory() || stat.uid !== uid) throw new UsageError(`runtime directory ${path} is not a directory of ours`)
  if ((stat.mode & 0o777) !== 0o700) chmodSync(path, 0o700)
  return path
}

/** A directory of its own inside, for one mount. */
export function privateDir(): { path: string, remove: () => void } {
  const path = mkdtempSync(join(runtimeDir(), 'm-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}
