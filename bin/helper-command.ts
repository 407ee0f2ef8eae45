/**
 * The helper of mount(8): `mount.virtiofs-bridge SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.
 * In a helper -f means fake, not foreground. Source: mount(8), "External helpers".
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { errorLine, UsageError } from '../lib/errors.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { parseSource } from '../lib/mount/source.js'
import { ExitCode } from './exit-codes.js'
import { HELPER_COMMAND } from './helper-arguments.js'
import { runMount } from './run-mount.js'

function parse(args: string[]) {
  const flag = { type: 'boolean', default: false } as const
  try {
    return parseArgs({
      args, allowPositionals: true,
      options: {
        sloppy: { ...flag, short: 's' }, fake: { ...flag, short: 'f' }, 'no-mtab': { ...flag, short: 'n' }, verbose: { ...flag, short: 'v' },
        namespace: { type: 'string', short: 'N' }, type: { type: 'string', short: 't' }, options: { type: 'string', short: 'o', multiple: true, default: [] },
      },
    })
  } catch (error) {
    throw new UsageError(errorLine(error))
  }
}

/** @returns the exit code @throws what the mount throws */
export async function helperCommand(args: string[]): Promise<number> {
  const { values, positionals } = parse(args)
  const [source, mountpoint, ...more] = positionals
  if (source === undefined || mountpoint === undefined || more.length > 0) throw new UsageError('usage: mount.virtiofs-bridge SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]')
  if (values.type !== undefined && !/^(fuse\.)?virtiofs-bridge$/.test(values.type)) throw new UsageError(`type ${values.type} is not fuse.virtiofs-bridge`)
  if (values.namespace !== undefined) return await inNamespace(values.namespace, args)
  if (values.verbose) console.log(`virtiofs-bridge: ${values.fake ? 'would mount' : 'mounting'} ${source} on ${mountpoint}${values.options.length > 0 ? ` (${values.options.join(',')})` : ''}`)
  if (values.fake) {
    parseSource(source, parseMountOptions(values.options, { sloppy: values.sloppy }))
    return ExitCode.OK
  }
  return await runMount({ source, mountpoint, options: values.options, sloppy: values.sloppy }, false)
}

/** The same in another mount namespace, where this program and Node have to be visible. */
async function inNamespace(namespace: string, args: string[]): Promise<number> {
  const path = /^\d+$/.test(namespace) ? `/proc/${namespace}/ns/mnt` : namespace
  const at = args.findIndex(arg => arg.startsWith('-N') || arg === '--namespace')
  const others = args.toSpliced(at, args[at] === '-N' || args[at] === '--namespace' ? 2 : 1)
  const script = fileURLToPath(new URL('./virtiofs-bridge.js', import.meta.url))
  const child = spawn('nsenter', [`--mount=${path}`, '--', process.execPath, ...process.execArgv, script, HELPER_COMMAND, ...others], { stdio: 'inherit' })
  try {
    const [code] = await once(child, 'close') as [number | null]
    return code === 127 ? ExitCode.FAILURE : code ?? ExitCode.INTERRUPTED
  } catch (error) {
    throw new UsageError(`nsenter: ${errorLine(error)}`, 'ENOENT')
  }
}
