/**
 * What zenfs-test needs of a file system under test: the suite of @zenfs/core imports this module
 * (SETUP) for `fs` and for the flags of what is not there. A connected emulated device, or the peer
 * that $PEER names, over a new directory with the suite's own data in it.
 *
 * Every flag that is off, with the reason:
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import * as nodeFs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { connect, Dirent, type XattrOptions } from '../../lib/index.js'
import { findPeer, type ClientPeer } from '../support/client-peers.js'

export const flags = {
  /** A device answers later: there are no synchronous calls. */
  sync: false,
  /** `fs.createReadStream` takes a path and returns before the file is open; node:fs/promises has streams of a FileHandle only. */
  streams: false,
  /** A device tells a client of no changes. */
  watch: false,
  /** As in node:fs on Linux. */
  lchmod: false,
  /** node:fs/promises has none. */
  'promises.exists': false,
}

process.umask(0)
const directory = mkdtempSync(join(tmpdir(), 'vfc-zenfs-'))
cpSync(process.env['ZENFS_DATA']!, directory, { recursive: true })
const connected = await connect(directory, { ...findPeer((process.env['PEER'] ?? 'emulated') as ClientPeer), xattr: true, cache: 'never' })
after(async () => {
  await connected.close()
  rmSync(directory, { recursive: true, force: true })
})

/**
 * What tests of asynchronous calls prepare and look at with synchronous ones: by the host, in the
 * shared directory. So nothing may be cached.
 */
const byHost = Object.fromEntries(['accessSync', 'appendFileSync', 'chmodSync', 'existsSync', 'lstatSync', 'mkdirSync', 'readFileSync', 'readdirSync', 'rmSync', 'rmdirSync', 'statSync', 'symlinkSync', 'unlinkSync', 'writeFileSync'].map(name =>
  [name, (...args: unknown[]) => {
    const at = name === 'symlinkSync' ? 1 : 0
    args[at] = join(directory, String(args[at]))
    return (nodeFs as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!(...args)
  }]))

/** Node 20 cuts times to microseconds, and so takes a whole millisecond from some dates: half a microsecond keeps them. */
function utimesSync(path: string, atime: Date | number, mtime: Date | number): void {
  const seconds = (time: Date | number): number => (typeof time === 'number' ? time : time.getTime() / 1000) + 5e-7
  nodeFs.utimesSync(join(directory, path), seconds(atime), seconds(mtime))
}

/** Node 20 has none. */
const errors = Error as unknown as { isError?: (value: unknown) => boolean }
errors.isError ??= value => value instanceof Error

export const fs = {
  ...byHost,
  utimesSync,
  /** Called with a wrong descriptor only. */
  futimesSync: nodeFs.futimesSync,
  /** As asynchronous tests use it: made synchronously, read asynchronously. */
  opendirSync: (path: string) => {
    const opened = connected.opendir(path)
    return {
      read: async () => (await opened).read(),
      close: async () => (await opened).close(),
      async *[Symbol.asyncIterator]() { yield* await opened },
    }
  },
  promises: connected,
  constants: nodeFs.constants,
  Stats: nodeFs.Stats,
  Dirent,
  /** The suite's own shape of extended attributes. */
  xattr: {
    set: (path: string, name: string, value: string, options?: XattrOptions) => connected.setxattr(path, name, value, options),
    get: async (path: string, name: string, { encoding }: { encoding: BufferEncoding | 'buffer' }) => {
      const value = await connected.getxattr(path, name)
      return encoding === 'buffer' ? value : value.toString(encoding)
    },
    remove: (path: string, name: string) => connected.removexattr(path, name),
    list: (path: string) => connected.listxattr(path),
  },
}
