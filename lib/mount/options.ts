/**
 * Mount options: one table, read by the parser of `-o`, by --help and by the library's checks.
 * Names follow mount(8), virtiofsd and the FUSE tools.
 */
import { checkPatterns } from '../device/passthrough/name-filter.js'
import { TranslatedIds } from '../device/passthrough/id-map.js'
import { XattrMap } from '../device/passthrough/xattr-map.js'
import { UsageError } from '../errors.js'
import * as ms from './flags.js'
import { foreignAdvice, isAlwaysSo, namesAlwaysSo } from './foreign-options.js'
import { nearest } from './nearest.js'
import { splitWords } from './split-words.js'

/** Options of a mount as the library takes them. Everything has a default. */
export interface MountOptions {
  /** virtio-fs tag; read from the device where it has one. */
  tag?: string
  /** vhost-user socket, when the source is a tag. */
  socket?: string
  /** Start and end a virtiofsd over the source directory, instead of the emulated device. */
  backend?: 'virtiofsd'
  /** The virtiofsd to start; default: $VIRTIOFSD, then the usual places. */
  virtiofsd?: string
  /** Sandbox of a virtiofsd that we start. */
  sandbox?: 'none' | 'chroot' | 'namespace'
  /** Program that reaches another host, with its arguments, instead of ssh. */
  rsh?: string
  /** The command that serves at the far end. Default `virtiofs-bridge`. */
  relayCommand?: string
  /** How its requests come: from /dev/fuse, or by paths through the package fuse-native (libfuse 2). Default `kernel`. */
  via?: 'kernel' | 'fuse-native'
  /** Request queues; capped by the device. Default 1. */
  queues?: number
  /** Entries of a ring: a power of two from 4 to 1024. Default 128. */
  queueSize?: number
  /** Microseconds to poll before sleeping, at most; `auto` adapts below 200, `off` never polls. */
  poll?: 'auto' | 'off' | number
  /** Whether all CPUs are kept awake while polling pays: root only, and it costs power. */
  lowLatency?: boolean
  /** Bytes that the kernel reads ahead in a file, at most: as root. Default 512 KiB, of another host 8 MiB. */
  readahead?: number
  cache?: 'auto' | 'always' | 'metadata' | 'never' | 'coherent'
  writeback?: boolean
  xattr?: boolean
  posixAcl?: boolean
  /** Rules that translate names of attributes, in virtiofsd's language; implies `xattr`. */
  xattrmap?: string
  /** Rules that translate user ids between the mount and the source, in virtiofsd's language. */
  translateUid?: readonly string[]
  /** The same for group ids. */
  translateGid?: readonly string[]
  /** Globs of names that do not exist in the mount and cannot be made, in any directory. */
  hide?: readonly string[]
  /** What is no directory exists in the mount only if its name matches one of these globs. */
  only?: readonly string[]
  /** Bytes that all that is in the directory may take together, as du(1) counts. */
  maxSize?: number
  allowDirectIo?: boolean
  /** The kernel reads, writes and maps files of the emulated device itself (FUSE passthrough): as root, on Linux 6.9 or later. */
  direct?: boolean
  readdirplus?: boolean
  readonly?: boolean
  /** Seconds that the device has for a request before it counts as gone. Default: as long as it takes. */
  timeout?: number
  /** What happens when a backend goes away: operations fail, or wait until it is back. Default `fail`. */
  onDisconnect?: 'fail' | 'wait'
  /** The command only: a process that serves the mount and is killed is replaced, and what it had in hand is sent again. */
  supervise?: boolean
  /** Unmount when the process that serves the mount has been killed; otherwise it stays, and answers ENOTCONN. */
  autoUnmount?: boolean
  /** Seconds that it has for each step of mounting and unmounting. Default 10. */
  mountTimeout?: number
  /** Append a JSON record per request and lifecycle event to this file. */
  traceJson?: string
  /** Append a JSON line to this file for everything that is opened, closed or changed. */
  audit?: string
  /** Unmount after so many seconds without a request, when nothing is open. */
  idleTimeout?: number
  /** Where the command in the background says what happens: `syslog`, `journal`, `none` or a file. A program listens to events. */
  log?: string
  /** Source shown in mount tables. Default: the source. */
  fsname?: string
  /** Let other users in. Default: as root yes, unless nobody checks permissions. */
  allowOther?: boolean
  /** Let the kernel check permissions. Default yes. */
  defaultPermissions?: boolean
  /** MS_* flags of mount(2). */
  mountFlags?: number
}

/** What an option is called in the library. */
export type Key = Exclude<keyof MountOptions, 'mountFlags'>

interface OptionRow {
  name: string
  key: Key
  /** Placeholder of the value; none for a switch. */
  value?: string
  /** What a switch sets; default true. */
  set?: boolean
  choices?: readonly string[]
  parse?: (text: string, name: string) => unknown
  /** May be given several times. Checks all the values together. */
  list?: (texts: readonly string[], name: string) => void
  help: string
}

function positiveInteger(text: string, name: string): number {
  const number = Number(text)
  if (!/^\d+$/.test(text) || number < 1) throw new UsageError(`option ${name}=${text}: expected a whole number from 1`)
  return number
}

function seconds(text: string, name: string): number {
  const number = Number(text)
  if (text === '' || !(number > 0) || number > 86400) throw new UsageError(`option ${name}=${text}: expected seconds from more than 0 to 86400`)
  return number
}

function poll(text: string, name: string): 'auto' | 'off' | number {
  if (text === 'auto' || text === 'off') return text
  if (!/^\d+$/.test(text)) throw new UsageError(`option ${name}=${text}: expected auto, off or microseconds`)
  return Number(text)
}

/** @throws UsageError */
function xattrmap(text: string): string {
  new XattrMap(text)
  return text
}

/** @throws UsageError */
function idRules(rules: readonly string[], name: string): void {
  new TranslatedIds(`option ${name}`, rules)
}

const UNITS = ['', 'k', 'm', 'g', 't']

/** Bytes, or with a suffix of powers of 1024. */
function size(text: string, name: string): number {
  const [, digits, unit] = /^(\d+)([kmgt]?)i?b?$/i.exec(text) ?? []
  const bytes = Number(digits) * 1024 ** UNITS.indexOf(unit?.toLowerCase() ?? '')
  if (digits === undefined || !Number.isSafeInteger(bytes) || bytes === 0) throw new UsageError(`option ${name}=${text}: expected a size such as 500M or 10G`)
  return bytes
}

/** @throws UsageError */
function words(text: string, name: string): string {
  splitWords(text, `option ${name}`)
  return text
}

/** @throws UsageError */
function patterns(texts: readonly string[], name: string): void {
  checkPatterns(texts, `option ${name}`)
}

export const optionTable: readonly OptionRow[] = [
  { name: 'tag', key: 'tag', value: 'TAG', help: 'virtio-fs tag, at most 36 bytes (default: the device\'s, else the last part of the source)' },
  { name: 'socket', key: 'socket', value: 'PATH', help: 'vhost-user socket of the device, when the source is a tag' },
  { name: 'backend', key: 'backend', value: 'virtiofsd', choices: ['virtiofsd'], help: 'start a virtiofsd over the source directory, and end it' },
  { name: 'virtiofsd', key: 'virtiofsd', value: 'PATH', help: 'the virtiofsd to start (default: $VIRTIOFSD, then $PATH and the usual places)' },
  { name: 'sandbox', key: 'sandbox', value: 'MODE', choices: ['none', 'chroot', 'namespace'], help: 'its sandbox: namespace (default), chroot or none' },
  { name: 'rsh', key: 'rsh', value: 'COMMAND', parse: words, help: 'what reaches the host of ssh://, with its arguments (default: ssh)' },
  { name: 'relay_command', key: 'relayCommand', value: 'COMMAND', help: 'virtiofs-bridge at the far end of ssh:// (default: virtiofs-bridge)' },
  { name: 'via', key: 'via', value: 'WAY', choices: ['kernel', 'fuse-native'], help: 'how requests come: kernel (default), or fuse-native, see below' },
  { name: 'queues', key: 'queues', value: 'N', parse: positiveInteger, help: 'request queues, each with a thread of its own (default: 1; capped by the device)' },
  { name: 'queue_size', key: 'queueSize', value: 'N', parse: positiveInteger, help: 'ring entries: a power of two from 4 to 1024 (default: 128)' },
  { name: 'poll', key: 'poll', value: 'auto|off|USEC', parse: poll, help: 'how long to poll before sleeping (default: auto, at most 200 microseconds)' },
  { name: 'low_latency', key: 'lowLatency', help: 'keep idle CPUs awake while polling pays (root; default in a virtual machine of up to 4 CPUs)' },
  { name: 'no_low_latency', key: 'lowLatency', set: false, help: 'let them sleep' },
  { name: 'readahead', key: 'readahead', value: 'SIZE', parse: size, help: 'what the kernel reads ahead (root; default: 512K, 8M of another host)' },
  { name: 'cache', key: 'cache', value: 'POLICY', choices: ['auto', 'always', 'metadata', 'never', 'coherent'], help: 'caching policy: virtiofsd\'s auto (default), always, metadata, never; or coherent, see below' },
  { name: 'writeback', key: 'writeback', help: 'cache writes in the kernel' },
  { name: 'xattr', key: 'xattr', help: 'extended attributes' },
  { name: 'posix_acl', key: 'posixAcl', help: 'POSIX ACLs; implies xattr' },
  { name: 'xattrmap', key: 'xattrmap', value: 'RULES', parse: xattrmap, help: 'translate names of extended attributes, as virtiofsd\'s; implies xattr' },
  { name: 'translate_uid', key: 'translateUid', value: 'RULE', list: idRules, help: 'translate user ids, as virtiofsd\'s --translate-uid; may be repeated' },
  { name: 'translate_gid', key: 'translateGid', value: 'RULE', list: idRules, help: 'translate group ids in the same way; may be repeated' },
  { name: 'hide', key: 'hide', value: 'PATTERN', list: patterns, help: 'names that do not exist and cannot be made, in any directory; may be repeated' },
  { name: 'only', key: 'only', value: 'PATTERN', list: patterns, help: 'the names that exist and can be made, but for directories; may be repeated' },
  { name: 'max_size', key: 'maxSize', value: 'SIZE', parse: size, help: 'what all files together may take, such as 10G; ENOSPC beyond' },
  { name: 'allow_direct_io', key: 'allowDirectIo', help: 'pass O_DIRECT on to the shared directory' },
  { name: 'direct', key: 'direct', help: 'the kernel reads, writes and maps the files itself (root, Linux 6.9)' },
  { name: 'no_readdirplus', key: 'readdirplus', set: false, help: 'do without READDIRPLUS' },
  { name: 'timeout', key: 'timeout', value: 'SECONDS', parse: seconds, help: 'a device that does not answer a request in this time is gone (default: wait)' },
  { name: 'on_disconnect', key: 'onDisconnect', value: 'fail|wait', choices: ['fail', 'wait'], help: 'when a backend goes away: fail, or wait until it is back, see below (default: fail)' },
  { name: 'supervise', key: 'supervise', help: 'a process that serves the mount and is killed is replaced, see below' },
  { name: 'auto_unmount', key: 'autoUnmount', help: 'unmount when the process that serves the mount has been killed' },
  { name: 'mount_timeout', key: 'mountTimeout', value: 'SECONDS', parse: seconds, help: 'deadline of each step of mounting and unmounting (default: 10)' },
  { name: 'trace_json', key: 'traceJson', value: 'FILE', help: 'append a JSON record per request and lifecycle event' },
  { name: 'audit', key: 'audit', value: 'FILE', help: 'append a JSON record of all that is opened, closed or changed' },
  { name: 'idle_timeout', key: 'idleTimeout', value: 'SECONDS', parse: seconds, help: 'unmount after so long without a request, when nothing is open' },
  { name: 'log', key: 'log', value: 'syslog|journal|none|FILE', help: 'where a mount in the background says what happens (default: syslog, if there is one)' },
  { name: 'fsname', key: 'fsname', value: 'NAME', help: 'source to show in mount tables' },
  { name: 'allow_other', key: 'allowOther', help: 'let other users in (default as root, with default_permissions)' },
  { name: 'no_allow_other', key: 'allowOther', set: false, help: 'only the user who mounted' },
  { name: 'default_permissions', key: 'defaultPermissions', help: 'the kernel checks permissions (default)' },
  { name: 'no_default_permissions', key: 'defaultPermissions', set: false, help: 'the kernel checks no permissions; a directory that is served checks only who makes something' },
]

/** Flags of mount(2) by their name in mount(8): [set, clear]. */
const mountFlagTable: Record<string, [set: number, clear: number]> = {
  ro: [ms.MS_RDONLY, 0], rw: [0, ms.MS_RDONLY],
  nosuid: [ms.MS_NOSUID, 0], suid: [0, ms.MS_NOSUID],
  nodev: [ms.MS_NODEV, 0], dev: [0, ms.MS_NODEV],
  noexec: [ms.MS_NOEXEC, 0], exec: [0, ms.MS_NOEXEC],
  sync: [ms.MS_SYNCHRONOUS, 0], async: [0, ms.MS_SYNCHRONOUS],
  dirsync: [ms.MS_DIRSYNC, 0],
  noatime: [ms.MS_NOATIME, 0], atime: [0, ms.MS_NOATIME],
  nodiratime: [ms.MS_NODIRATIME, 0], diratime: [0, ms.MS_NODIRATIME],
  relatime: [ms.MS_RELATIME, 0], norelatime: [0, ms.MS_RELATIME],
  strictatime: [ms.MS_STRICTATIME, 0], nostrictatime: [0, ms.MS_STRICTATIME],
  lazytime: [ms.MS_LAZYTIME, 0], nolazytime: [0, ms.MS_LAZYTIME],
  nosymfollow: [ms.MS_NOSYMFOLLOW, 0], symfollow: [0, ms.MS_NOSYMFOLLOW],
  defaults: [0, 0],
}

/** Names of those flags. */
export const mountFlags: readonly string[] = Object.keys(mountFlagTable)

/** Options of mount(8) that are not for the file system. */
const ignored = new Set([
  'user', 'nouser', 'users', 'nousers', 'owner', 'noowner', 'group', 'nogroup', 'nofail', 'auto', 'noauto', '_netdev',
  'mand', 'nomand', 'iversion', 'noiversion', 'silent', 'loud', 'comment', 'helper', 'uhelper', 'subtype',
])

/** Also those that begin so: they are for libmount and systemd. */
function isIgnored(name: string): boolean {
  return ignored.has(name) || /^x-/i.test(name)
}

/** Names of the mount(8) flags that are set. */
export function mountFlagNames(flags: number): string[] {
  return Object.entries(mountFlagTable).filter(([, [set]]) => set !== 0 && (flags & set) === set).map(([name]) => name)
}

/** Splits at commas that no backslash escapes. */
function split(text: string): string[] {
  return (text.match(/(?:\\.|[^,\\])+/gs) ?? []).map(part => part.replace(/\\(.)/gs, '$1'))
}

/**
 * Parses `-o` arguments.
 *
 * @param texts comma-separated lists, as they were given
 * @param sloppy pass over what is not known
 * @throws UsageError for an unknown option, a missing or a bad value
 */
export function parseMountOptions(texts: readonly string[], { sloppy = false } = {}): MountOptions {
  const options: Record<string, unknown> = {}
  let flags = 0
  for (const part of texts.flatMap(split)) {
    const equals = part.indexOf('=')
    const name = equals < 0 ? part : part.slice(0, equals)
    const value = equals < 0 ? undefined : part.slice(equals + 1)
    if (isIgnored(name) || isAlwaysSo(part)) continue
    if (name === 'remount') throw new UsageError('a mount cannot be changed by remount: unmount it and mount it again')
    const flag = value === undefined && Object.hasOwn(mountFlagTable, name) ? mountFlagTable[name] : undefined
    if (flag) {
      flags = (flags | flag[0]) & ~flag[1]
      continue
    }
    const row = optionTable.find(candidate => candidate.name === name)
    if (!row && sloppy) continue
    if (!row) throw unknownOption(part, name, value)
    const parsed = parseValue(row, value)
    if (row.list) {
      const all = [...options[row.key] as string[] | undefined ?? [], parsed as string]
      row.list(all, row.name)
      options[row.key] = all
    } else {
      options[row.key] = parsed
    }
  }
  if (flags & ms.MS_RDONLY) options['readonly'] = true
  options['mountFlags'] = flags
  return options as MountOptions
}

/** Says what was probably meant. */
function unknownOption(option: string, name: string, value: string | undefined): UsageError {
  if (value !== undefined && (Object.hasOwn(mountFlagTable, name) || isAlwaysSo(name))) return new UsageError(`option ${option}: ${name} takes no value`)
  const advice = foreignAdvice(option, name, value)
  if (advice !== undefined) return new UsageError(`option ${option}: ${advice}`)
  const meant = nearest(name, [...optionTable.map(row => row.name), ...mountFlags, ...namesAlwaysSo()])
  const needsValue = optionTable.find(row => row.name === meant)?.value
  const full = needsValue === undefined ? meant : `${meant}=${value === undefined || value === '' ? needsValue : value}`
  return new UsageError(`unknown option "${option}"${meant === undefined ? '' : ` (did you mean ${full}?)`}`)
}

/**
 * Options as text for `-o`, as `parseMountOptions` reads them.
 * @param keys those that are wanted
 */
export function formatMountOptions(options: MountOptions, keys: readonly Key[]): string[] {
  const escape = (value: unknown): string => String(value).replace(/[\\,]/g, '\\$&')
  const texts = optionTable.filter(row => keys.includes(row.key) && options[row.key] !== undefined).flatMap(row => {
    const value = options[row.key]
    if (row.value === undefined) return value === (row.set ?? true) ? [row.name] : []
    return (row.list ? value as readonly string[] : [value]).map(one => `${row.name}=${escape(one)}`)
  })
  return options.readonly && keys.includes('readonly') ? [...texts, 'ro'] : texts
}

function anyOf(choices: readonly string[]): string {
  return choices.length === 1 ? choices[0]! : `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)!}`
}

function parseValue(row: OptionRow, value: string | undefined): unknown {
  if (row.value === undefined) {
    if (value !== undefined) throw new UsageError(`option ${row.name} takes no value`)
    return row.set ?? true
  }
  if (value === undefined || value === '') throw new UsageError(`option ${row.name} needs a value: ${row.choices ? anyOf(row.choices) : `${row.name}=${row.value}`}`)
  if (row.choices && !row.choices.includes(value)) throw new UsageError(`option ${row.name}=${value}: expected ${anyOf(row.choices)}`)
  return row.parse ? row.parse(value, row.name) : value
}

const DEFAULT_QUEUE_SIZE = 128

/** The queue_size option. @param name what it is called where it was given @throws UsageError */
export function ringEntries(queueSize = DEFAULT_QUEUE_SIZE, name = 'queue_size'): number {
  if (!Number.isInteger(queueSize) || queueSize < 4 || queueSize > 1024 || (queueSize & (queueSize - 1)) !== 0) {
    throw new UsageError(`${name} is ${queueSize}, expected a power of two from 4 to 1024`)
  }
  return queueSize
}

/** The largest time that `poll=auto` polls, in microseconds. */
const POLL_AUTO_US = 200

/** Whether users other than the one who mounts are let in. Where nobody checks what they do, only if that was said. */
export function letsOthersIn({ allowOther, defaultPermissions }: MountOptions): boolean {
  return allowOther ?? (process.getuid!() === 0 && defaultPermissions !== false)
}

/** The poll option in microseconds. */
export function pollMicroseconds(poll: MountOptions['poll'] = 'auto'): number {
  return poll === 'auto' ? POLL_AUTO_US : poll === 'off' ? 0 : poll
}

/** The mount_timeout option in milliseconds. */
export function mountTimeoutMs(seconds = 10): number {
  return seconds * 1000
}
