/**
 * `virtiofs-bridge install` and `uninstall`: the helpers that mount(8) looks for. They are small
 * scripts with absolute paths, since mount(8), systemd and cron have a PATH of their own.
 */
import { accessSync, chmodSync, constants, lstatSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { systemReason, UsageError } from '../lib/errors.js'
import { ExitCode } from './exit-codes.js'
import { HELPER_COMMAND, HELPER_DIRECTORY } from './helper-arguments.js'

/** Types by which the file system can be mounted: fuse.virtiofs-bridge, and virtiofs-bridge for short. */
const HELPERS = ['mount.fuse.virtiofs-bridge', 'mount.virtiofs-bridge']
const MARK = '# a helper of mount(8), made by "virtiofs-bridge install"'

function quote(text: string): string {
  return `'${text.replaceAll('\'', '\'\\\'\'')}'`
}

function script(): string {
  const command = fileURLToPath(new URL('./virtiofs-bridge.js', import.meta.url))
  return `#!/bin/sh\n${MARK}\nexec ${quote(process.execPath)} ${quote(command)} ${HELPER_COMMAND} "$@"\n`
}

/** What is at a path: nothing, a helper of ours, or something else. */
function lookAt(path: string): 'nothing' | 'ours' | 'foreign' {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (!stat) return 'nothing'
  return stat.isFile() && stat.size < 4096 && readFileSync(path, 'utf8').includes(MARK) ? 'ours' : 'foreign'
}

/** Whether the helpers are in place, and lead to this program. */
export function helperState(directory = HELPER_DIRECTORY): 'missing' | 'elsewhere' | 'here' {
  const paths = HELPERS.map(name => join(directory, name))
  if (!paths.every(path => lookAt(path) === 'ours')) return 'missing'
  return paths.every(path => readFileSync(path, 'utf8') === script()) ? 'here' : 'elsewhere'
}

function checkWritable(directory: string): void {
  try {
    accessSync(directory, constants.W_OK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UsageError(code === 'ENOENT' ? `${directory} does not exist` : `cannot write to ${directory}: ${systemReason(error)}`, code === 'EACCES' ? 'EPERM' : code ?? 'EIO')
  }
}

/** @returns the exit code @throws UsageError: not writable, or a file that is not ours is in the way */
export function installCommand(directory: string): number {
  checkWritable(directory)
  const paths = HELPERS.map(name => join(directory, name))
  const foreign = paths.find(path => lookAt(path) === 'foreign')
  if (foreign) throw new UsageError(`${foreign} is not of virtiofs-bridge: left as it is`, 'EEXIST')
  for (const path of paths) {
    const making = `${path}.${process.pid}`
    try {
      writeFileSync(making, script())
      chmodSync(making, 0o755)
      renameSync(making, path)
    } catch (error) {
      rmSync(making, { force: true })
      throw error
    }
    console.log(path)
  }
  return ExitCode.OK
}

/** @returns the exit code @throws UsageError when it may not */
export function uninstallCommand(directory: string): number {
  const ours = HELPERS.map(name => join(directory, name)).filter(path => lookAt(path) === 'ours')
  if (ours.length > 0) checkWritable(directory)
  for (const path of ours) {
    unlinkSync(path)
    console.log(path)
  }
  return ExitCode.OK
}
