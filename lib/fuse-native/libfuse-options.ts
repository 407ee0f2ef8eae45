/** Options of libfuse 2 and of the kernel for one mount, as one text for the addon. */
import { UsageError } from '../errors.js'
import { letsOthersIn, mountFlagNames, type MountOptions } from '../mount/options.js'

/** The addon cuts what is longer. */
const MAX_BYTES = 1023

/** Options of a mount that path-based callbacks cannot have. */
const IMPOSSIBLE = [
  ['queues', 'queues'], ['readahead', 'readahead'], ['writeback', 'writeback'], ['posix_acl', 'posixAcl'], ['direct', 'direct'], ['audit', 'audit'], ['timeout', 'timeout'], ['on_disconnect', 'onDisconnect'], ['supervise', 'supervise'],
] as const

/** What libfuse 2.9 takes of the flags of mount(8); it sets nosuid and nodev itself, unless told otherwise. */
const KNOWN_FLAGS = new Set(['ro', 'nosuid', 'nodev', 'noexec', 'sync', 'dirsync', 'noatime'])

/** Seconds that names and attributes are good for, and what happens to data, by the policy: as virtiofsd has them. */
const CACHE = {
  auto: ['entry_timeout=1', 'attr_timeout=1'],
  always: ['entry_timeout=86400', 'attr_timeout=86400', 'kernel_cache'],
  metadata: ['entry_timeout=86400', 'attr_timeout=86400', 'direct_io'],
  never: ['entry_timeout=0', 'attr_timeout=0', 'direct_io'],
} as const

/** @throws UsageError for what is not possible this way */
export function checkOptions(options: MountOptions): void {
  const found = IMPOSSIBLE.find(([, key]) => options[key] !== undefined)
  if (found) throw new UsageError(`option ${found[0]} is not possible with via=fuse-native`)
  if (options.cache === 'coherent') throw new UsageError('option cache=coherent is not possible with via=fuse-native')
  const flag = flagsOf(options).find(name => !KNOWN_FLAGS.has(name))
  if (flag) throw new UsageError(`option ${flag} is not possible with via=fuse-native: libfuse 2 does not know it`)
}

function flagsOf({ mountFlags = 0 }: MountOptions): string[] {
  // the kernel's default
  return mountFlagNames(mountFlags).filter(name => name !== 'relatime')
}

/** Backslash-escapes what libfuse would take for the end of an option. */
function escape(value: string): string {
  return value.replace(/[\\,]/g, '\\$&')
}

/**
 * @param source shown in mount tables
 * @throws UsageError when that is too long
 */
export function libfuseOptions(source: string, options: MountOptions): string {
  const root = process.getuid!() === 0
  const flags = flagsOf(options)
  const text = '-o' + [
    `fsname=${escape(options.fsname ?? source)}`, 'subtype=virtiofs-bridge', 'nonempty', 'use_ino', 'big_writes',
    ...CACHE[options.cache === 'coherent' ? 'auto' : options.cache ?? 'auto'],
    ...letsOthersIn(options) ? ['allow_other'] : [], ...options.defaultPermissions ?? true ? ['default_permissions'] : [],
    ...root && !flags.includes('nosuid') ? ['suid'] : [], ...root && !flags.includes('nodev') ? ['dev'] : [], ...flags,
  ].join(',')
  if (Buffer.byteLength(text) > MAX_BYTES) throw new UsageError(`the options for libfuse have ${Buffer.byteLength(text)} bytes, and fuse-native takes ${MAX_BYTES}: give a shorter fsname`)
  return text
}
