/** What a SOURCE names: a directory, a vhost-user socket, a tag with a socket beside it, or a device on another host. */
import { statSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { servedName, type ServedDevice } from '../device/serve.js'
import { systemReason, UsageError } from '../errors.js'
import type { RelaySession } from '../relay/relay-session.js'
import type { MountOptions } from './options.js'
import { parseRemote } from './remote-source.js'

export type Source =
  | { kind: 'directory', path: string, tag: string }
  | { kind: 'socket', path: string, tag: string }
  | { kind: 'remote', argv: readonly string[], tag: string, session?: RelaySession }
  | { kind: 'served', device: ServedDevice, tag: string }

const MAX_TAG_BYTES = 36

/** A tag for a device that has none: the last part of the path, cut to what a tag may be. */
function defaultTag(path: string): string {
  let tag = basename(path).replace(/\s/g, '_') || 'root'
  while (Buffer.byteLength(tag) > MAX_TAG_BYTES) tag = [...tag].slice(0, -1).join('')
  return tag
}

function checkTag(tag: string): string {
  const bytes = Buffer.byteLength(tag)
  if (bytes === 0) throw new UsageError('the tag is empty')
  if (bytes > MAX_TAG_BYTES) throw new UsageError(`tag "${tag}" has ${bytes} bytes, at most ${MAX_TAG_BYTES} are possible`)
  if (tag.includes('\n')) throw new UsageError(`tag ${JSON.stringify(tag)} contains a newline`)
  return tag
}

/** Options that a source on this host does nothing with. @throws UsageError */
function refuseUnused({ rsh, relayCommand, backend, virtiofsd, sandbox }: MountOptions): void {
  if (rsh !== undefined || relayCommand !== undefined) throw new UsageError(`option ${rsh === undefined ? 'relay_command' : 'rsh'} needs a source ssh://`)
  if (backend === undefined && (virtiofsd !== undefined || sandbox !== undefined)) throw new UsageError(`option ${virtiofsd === undefined ? 'sandbox' : 'virtiofsd'} needs backend=virtiofsd`)
}

/** What else a source may have meant that is not there. */
function notThere(source: string): string {
  const [, host, path] = /^([^/:]+):(?!\/\/)(.*)$/s.exec(source) ?? []
  if (host === undefined) return 'a tag needs -o socket=PATH'
  return `another host is ssh://${host}${path!.startsWith('/') ? path! : '/PATH'}`
}

/**
 * Finds out what a source is.
 *
 * @throws UsageError when it is nothing that can be mounted
 */
export function parseSource(source: string | ServedDevice, options: MountOptions): Source {
  if (source === '') throw new UsageError('the source is empty')
  const given = options.tag === undefined ? undefined : checkTag(options.tag)
  if (typeof source !== 'string') return { kind: 'served', device: source, tag: given ?? defaultTag(servedName(source)) }
  if (!source.startsWith('ssh:') && !source.startsWith('exec:')) refuseUnused(options)
  if (source.startsWith('unix:')) {
    if (source === 'unix:') throw new UsageError('source unix: has no path')
    const path = resolve(source.slice('unix:'.length))
    return { kind: 'socket', path, tag: given ?? defaultTag(path) }
  }
  const remote = parseRemote(source, options)
  if (remote) return { kind: 'remote', argv: remote.argv, tag: given ?? defaultTag(remote.path) }
  if (options.socket !== undefined) {
    return { kind: 'socket', path: resolve(options.socket), tag: given ?? checkTag(source) }
  }
  const path = resolve(source)
  let stat
  try {
    stat = statSync(path)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    throw new UsageError(code === 'ENOENT' ? `source ${source}: no such directory or socket (${notThere(source)})` : `source ${source}: ${systemReason(error)}`, code ?? 'EIO')
  }
  if (stat.isSocket()) return { kind: 'socket', path, tag: given ?? defaultTag(path) }
  if (!stat.isDirectory()) throw new UsageError(`source ${source} is neither a directory nor a socket`, 'ENOTDIR')
  return { kind: 'directory', path, tag: given ?? defaultTag(path) }
}

/** What serves a source, for people. */
export function backendName({ kind }: Source, { backend }: MountOptions): string {
  if (kind === 'directory') return backend ?? 'emulated'
  return kind === 'socket' ? 'vhost-user' : kind === 'remote' ? 'relay' : 'served'
}
