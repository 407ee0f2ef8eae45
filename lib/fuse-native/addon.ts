/**
 * The native addon of the npm package fuse-native: what of its exports is used here, and how it is
 * loaded. The package's own index.js is left out: its defects (native-notes/fuse-native.md) are in
 * there, and most of them are not in the addon.
 *
 * Source: fuse-native 2.2.6, fuse-native.c. No other version is taken, for what libfuse-thread.ts
 * knows is known of this one.
 */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { errorLine, UsageError } from '../errors.js'
import { loadGlobally } from '../sys/libc.js'

const VERSION = '2.2.6'
const LIBFUSE = 'libfuse.so.2'

/** Names of the callbacks, as the addon has them. */
export const OPERATIONS = [
  'init', 'error', 'access', 'statfs', 'fgetattr', 'getattr', 'flush', 'fsync', 'fsyncdir', 'readdir', 'truncate', 'ftruncate', 'utimens',
  'readlink', 'chown', 'chmod', 'mknod', 'setxattr', 'getxattr', 'listxattr', 'removexattr', 'open', 'opendir', 'read', 'write', 'release',
  'releasedir', 'create', 'unlink', 'rename', 'link', 'symlink', 'mkdir', 'rmdir',
] as const
export type Operation = (typeof OPERATIONS)[number]

/**
 * Called on the main thread while a thread of libfuse waits for the answer.
 * @param locals the struct fuse_thread_locals_t of that thread
 */
export type Handler = (locals: Buffer, operation: number, ...args: never[]) => void

export interface Addon extends Readonly<Record<`op_${Operation}`, number>> {
  readonly sizeof_fuse_thread_t: number
  /** Entries of the list of what is implemented: one more than there are operations. */
  fuse_native_mount(mountpoint: string, options: string, thread: Buffer, self: object, allocate: (bytes: number) => Buffer, handlers: Handler[], implemented: Uint32Array): void
  /**
   * Ends the waiting of a thread of libfuse. The addon has one such function for each operation, some
   * of which also write a result into C memory; this is one that only gives the number.
   */
  fuse_native_signal_access(locals: Buffer, result: number): void
}

function unfit(why: string, code = 'ENOENT'): UsageError {
  return new UsageError(`option via=fuse-native: ${why}`, code)
}

/**
 * Loads the addon and libfuse 2: the system's, or the copy that the package brings.
 * @throws UsageError that says what is missing
 */
export function loadAddon(): Addon {
  if (process.arch !== 'x64') throw unfit(`the package fuse-native has libfuse for x64 only, not for ${process.arch}`, 'ENOTSUP')
  const require = createRequire(import.meta.url)
  let root
  try {
    root = dirname(require.resolve('fuse-native/package.json'))
  } catch {
    throw unfit(`the npm package fuse-native is not installed (npm install fuse-native@${VERSION})`)
  }
  const { version } = require(join(root, 'package.json')) as { version: string }
  if (version !== VERSION) throw unfit(`fuse-native ${version} is installed, and ${VERSION} is needed (npm install fuse-native@${VERSION})`)
  // its index.js asks this package for the binary that fits, or for what was compiled here
  const find = createRequire(join(root, 'index.js'))('node-gyp-build') as (directory: string) => Addon
  try {
    return find(root)
  } catch (error) {
    if (!errorLine(error).includes(LIBFUSE)) throw unfit(`fuse-native does not load: ${errorLine(error)} (where there is no binary for this system: packages g++, make, python3, then npm rebuild fuse-native)`)
  }
  try {
    loadGlobally(join(root, 'prebuilds/linux-x64/libfuse.so'))
    return find(root)
  } catch (error) {
    throw unfit(`${LIBFUSE} is not there (Debian package libfuse2): ${errorLine(error)}`)
  }
}
