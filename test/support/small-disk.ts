/** A file system of a test's own. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

interface Teardown { teardown(handler: () => void): void }

/** A directory on a tmpfs of its own. @returns undefined when it cannot be mounted so */
export function smallDisk(t: Teardown, options: string): string | undefined {
  const base = mkdtempSync(join(tmpdir(), 'vfb-disk-'))
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', base])
  t.teardown(() => {
    if (status === 0) spawnSync('umount', ['-l', base])
    rmSync(base, { recursive: true, force: true })
  })
  if (status !== 0) return undefined
  const source = join(base, 'shared')
  mkdirSync(source, { mode: 0o777 })
  return source
}
