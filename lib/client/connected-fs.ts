/**
 * A connected file system: the shape of node:fs/promises over a virtio-fs device, with no mount.
 * Paths are paths in the device's tree: absolute, or relative to its root.
 */
import { EventEmitter } from 'node:events'
import { constants as fsConstants, type BigIntStats, type Stats } from 'node:fs'
import { randomInt } from 'node:crypto'
import { bytesToString } from '../device/byte-string.js'
import { errno } from '../errors.js'
import type { InitAnswer } from '../fuse/init.js'
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../sys/dir.js'
import { encodeName, flagsOf, idOf, integerOf, modeOf, optionsOf, pathOf, timeOf, type EncodingOption, type Mode, type OpenFlags, type PathLike, type TimeLike } from './arguments.js'
import { copyFile } from './copy-file.js'
import { copyTree, type CpOptions } from './copy-tree.js'
import { Dir, type OpenReader } from './dir.js'
import { DirectoryReader } from './directory-reader.js'
import type { Dirent } from './dirent.js'
import { FileHandle, type FileData, type ReadFileOptions, type StatOptions, type WriteFileOptions } from './file-handle.js'
import { FileIo } from './file-io.js'
import { abortError, fsError, invalidType, invalidValue, unwrap } from './fs-error.js'
import { listTree, type ReaddirOptions } from './list-tree.js'
import { makePath } from './make-path.js'
import { removeTree, type RmOptions } from './remove-tree.js'
import { bigIntStatFsOf, bigIntStatsOf, statFsOf, statsOf, type StatFs } from './stats.js'
import type { Session } from './session.js'
import type { Tree } from './tree.js'

export interface MkdirOptions {
  /** Make the parents too, and take a directory that is there. */
  recursive?: boolean
  mode?: Mode
}

export interface OpendirOptions {
  encoding?: EncodingOption
  recursive?: boolean
  /** Taken for the sake of node:fs: a device decides itself. */
  bufferSize?: number
}

export interface RenameOptions {
  /** Fail with EEXIST instead of replacing what is there. */
  noReplace?: boolean
  /** Swap the two. */
  exchange?: boolean
}

export interface XattrOptions {
  /** XATTR_CREATE: fail with EEXIST when it is there. */
  create?: boolean
  /** XATTR_REPLACE: fail with ENODATA when it is not. */
  replace?: boolean
}

interface MayThrow {
  /** Whether what is not there is an error. Default true. */
  throwIfNoEntry?: boolean
}
type Throws = MayThrow & { throwIfNoEntry?: true }

type Encoded<E> = E extends 'buffer' ? Buffer : string

interface Events {
  /** The device is gone: what is in flight and what comes fails. */
  gone: [reason: string]
}

const TEMPORARY_CHARACTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'
const TEMPORARY_TRIES = 100
let nextDevice = 0x10000

export class ConnectedFs extends EventEmitter<Events> {
  /** `fs.constants`. */
  readonly constants = fsConstants
  readonly #tree: Tree
  readonly #session: Session
  readonly #release: () => Promise<void>
  /** st_dev of this tree: a number that no other connection of this process has. */
  readonly #dev = nextDevice++
  #closing: Promise<void> | undefined

  /** @internal */
  constructor(session: Session, tree: Tree, release: () => Promise<void>) {
    super()
    this.#session = session
    this.#tree = tree
    this.#release = release
    session.on('gone', reason => this.emit('gone', reason))
  }

  /** virtio-fs tag of the device. */
  get tag(): string {
    return this.#session.tag
  }

  /** The device's answer to FUSE_INIT. */
  get init(): InitAnswer {
    return this.#session.init
  }

  /** Why the device is gone, or ''. */
  get gone(): string {
    return this.#session.gone
  }

  /** What cannot be done here, one line each: without root, or on such a file system. */
  get notices(): readonly string[] {
    return this.#session.transport.notices ?? []
  }

  /** Ends the session: waits for what is in flight, sends FORGETs and FUSE_DESTROY, stops the device. */
  close(): Promise<void> {
    this.#closing ??= this.#release()
    return this.#closing
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @param mode bits of `constants.R_OK` and the like; default F_OK @throws FsError when it may not */
  async access(path: PathLike, mode: number = fsConstants.F_OK): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.mayAccess(at.text, integerOf(mode, 'mode', 0, 7)), 'access', at.shown)
  }

  async appendFile(path: PathLike | FileHandle, data: FileData, options?: (WriteFileOptions & { mode?: Mode, flag?: OpenFlags }) | BufferEncoding | null): Promise<void> {
    await this.writeFile(path, data, { flag: 'a', ...optionsOf<object>(options as object | string | null, {}) })
  }

  async chmod(path: PathLike, mode: Mode): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.chmod(at.text, modeOf(mode, 'mode')), 'chmod', at.shown)
  }

  /** @param uid −1 for no change @param gid the same */
  async chown(path: PathLike, uid: number, gid: number): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.chown(at.text, idOf(uid, 'uid'), idOf(gid, 'gid'), true), 'chown', at.shown)
  }

  async lchown(path: PathLike, uid: number, gid: number): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.chown(at.text, idOf(uid, 'uid'), idOf(gid, 'gid'), false), 'lchown', at.shown)
  }

  /** @param atime seconds, a date, or a BigInt of nanoseconds @param mtime the same */
  async utimes(path: PathLike, atime: TimeLike, mtime: TimeLike): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.utimes(at.text, { atime: timeOf(atime), mtime: timeOf(mtime) }, true), 'utime', at.shown)
  }

  async lutimes(path: PathLike, atime: TimeLike, mtime: TimeLike): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.utimes(at.text, { atime: timeOf(atime), mtime: timeOf(mtime) }, false), 'lutime', at.shown)
  }

  /**
   * Copies a file, within the device where the device can.
   *
   * @param mode COPYFILE_EXCL and the like; a device cannot promise a clone (COPYFILE_FICLONE_FORCE)
   */
  async copyFile(path: PathLike, newPath: PathLike, mode = 0): Promise<void> {
    const from = pathOf(path, 'src')
    const to = pathOf(newPath, 'dest')
    integerOf(mode, 'mode', 0, 7)
    unwrap(await copyFile(this.#tree, from.text, to.text, mode), 'copyfile', from.shown, to.shown)
  }

  /** Copies a file or a tree of them, within the device. */
  async cp(path: PathLike, newPath: PathLike, options: CpOptions = {}): Promise<void> {
    await copyTree(this, pathOf(path, 'src').shown, pathOf(newPath, 'dest').shown, options)
  }

  async link(path: PathLike, newPath: PathLike): Promise<void> {
    const from = pathOf(path, 'existingPath')
    const to = pathOf(newPath, 'newPath')
    unwrap(await this.#tree.link(from.text, to.text), 'link', from.shown, to.shown)
  }

  async symlink(target: PathLike, path: PathLike): Promise<void> {
    const to = pathOf(target, 'target')
    const at = pathOf(path)
    unwrap(await this.#tree.symlink(to.text, at.text), 'symlink', to.shown, at.shown)
  }

  async readlink<E extends EncodingOption = 'utf8'>(path: PathLike, options?: { encoding?: E } | E | null): Promise<Encoded<E>> {
    const at = pathOf(path)
    const { encoding } = optionsOf<{ encoding?: EncodingOption }>(options as string | null, {})
    const target = unwrap(await this.#tree.readlink(at.text), 'readlink', at.shown)
    return encodeName(bytesToString(target), encoding) as Encoded<E>
  }

  /** The absolute path in the tree, without links. */
  async realpath<E extends EncodingOption = 'utf8'>(path: PathLike, options?: { encoding?: E } | E | null): Promise<Encoded<E>> {
    const at = pathOf(path)
    const { encoding } = optionsOf<{ encoding?: EncodingOption }>(options as string | null, {})
    return encodeName(unwrap(await this.#tree.realpath(at.text), 'realpath', at.shown), encoding) as Encoded<E>
  }

  /** @throws FsError; for what is not there, undefined with `throwIfNoEntry: false` */
  stat(path: PathLike, options?: StatOptions<false> & Throws): Promise<Stats>
  stat(path: PathLike, options: StatOptions<true> & Throws): Promise<BigIntStats>
  stat(path: PathLike, options?: StatOptions & Throws): Promise<Stats | BigIntStats>
  stat(path: PathLike, options: StatOptions<false> & MayThrow): Promise<Stats | undefined>
  stat(path: PathLike, options: StatOptions<true> & MayThrow): Promise<BigIntStats | undefined>
  stat(path: PathLike, options: StatOptions & MayThrow = {}): Promise<Stats | BigIntStats | undefined> {
    return this.#stat(path, true, options, 'stat')
  }

  /** The same, of a symbolic link itself. */
  lstat(path: PathLike, options?: StatOptions<false> & Throws): Promise<Stats>
  lstat(path: PathLike, options: StatOptions<true> & Throws): Promise<BigIntStats>
  lstat(path: PathLike, options?: StatOptions & Throws): Promise<Stats | BigIntStats>
  lstat(path: PathLike, options: StatOptions<false> & MayThrow): Promise<Stats | undefined>
  lstat(path: PathLike, options: StatOptions<true> & MayThrow): Promise<BigIntStats | undefined>
  lstat(path: PathLike, options: StatOptions & MayThrow = {}): Promise<Stats | BigIntStats | undefined> {
    return this.#stat(path, false, options, 'lstat')
  }

  async #stat(path: PathLike, follow: boolean, { bigint, signal, throwIfNoEntry = true }: StatOptions & MayThrow, syscall: string): Promise<Stats | BigIntStats | undefined> {
    const at = pathOf(path)
    const attributes = await this.#tree.stat(at.text, follow, signal)
    if (!throwIfNoEntry && (attributes === -errno.ENOENT || attributes === -errno.ENOTDIR)) return undefined
    const found = unwrap(attributes, syscall, at.shown, undefined, signal)
    return bigint ? bigIntStatsOf(found, this.#dev) : statsOf(found, this.#dev)
  }

  statfs(path: PathLike, options?: { bigint?: false }): Promise<StatFs>
  statfs(path: PathLike, options: { bigint: true }): Promise<StatFs<bigint>>
  async statfs(path: PathLike, options: { bigint?: boolean } = {}): Promise<StatFs | StatFs<bigint>> {
    const at = pathOf(path)
    const statistics = unwrap(await this.#tree.statfs(at.text), 'statfs', at.shown)
    return options.bigint ? bigIntStatFsOf(statistics) : statFsOf(statistics)
  }

  /** @returns with `recursive`: the first directory that was made, if any */
  mkdir(path: PathLike, options: MkdirOptions & { recursive: true }): Promise<string | undefined>
  mkdir(path: PathLike, options?: Mode | (MkdirOptions & { recursive?: false }) | null): Promise<void>
  mkdir(path: PathLike, options?: Mode | MkdirOptions | null): Promise<string | undefined>
  async mkdir(path: PathLike, options?: Mode | MkdirOptions | null): Promise<string | undefined | void> {
    const at = pathOf(path)
    const { recursive = false, mode } = typeof options === 'object' ? options ?? {} : { mode: options }
    if (typeof recursive !== 'boolean') throw invalidType('options.recursive', 'of type boolean', recursive)
    const bits = modeOf(mode, 'mode', 0o777)
    if (recursive) return await makePath(this.#tree, at.text, at.shown, bits)
    unwrap(await this.#tree.mkdir(at.text, bits), 'mkdir', at.shown)
  }

  async mkdtemp<E extends EncodingOption = 'utf8'>(prefix: string, options?: { encoding?: E } | E | null): Promise<Encoded<E>> {
    const { encoding } = optionsOf<{ encoding?: EncodingOption }>(options as string | null, {})
    const start = pathOf(prefix, 'prefix')
    for (let tries = 0; ; tries++) {
      const suffix = Array.from({ length: 6 }, () => TEMPORARY_CHARACTERS[randomInt(TEMPORARY_CHARACTERS.length)]).join('')
      const path = start.text + suffix
      const error = await this.#tree.mkdir(path, 0o700)
      if (error === 0) return encodeName(path, encoding) as Encoded<E>
      if (error !== -errno.EEXIST || tries >= TEMPORARY_TRIES) throw fsError(error, 'mkdtemp', start.shown + suffix)
    }
  }

  /**
   * @param mode of a new file
   * @throws FsError
   *
   * @example
   * const fs = await connect('/srv/shared')
   * const file = await fs.open('/lines', 'w+')
   * await file.write('one\ntwo\n')
   * const { buffer, bytesRead } = await file.read(Buffer.alloc(3), 0, 3, 4)
   * assert.equal(buffer.toString('utf8', 0, bytesRead), 'two')
   * await file.close()
   * await fs.close()
   */
  async open(path: PathLike, flags?: OpenFlags | null, mode?: Mode | null): Promise<FileHandle> {
    const at = pathOf(path)
    const file = unwrap(await this.#tree.open(at.text, flagsOf(flags), modeOf(mode, 'mode', 0o666)), 'open', at.shown)
    return new FileHandle(this.#tree, new FileIo(this.#tree, file), this.#dev)
  }

  /**
   * @example
   * const fs = await connect('/srv/shared')
   * await fs.mkdir('/notes')
   * for await (const entry of await fs.opendir('/')) console.log(entry.name, entry.isDirectory())
   * await fs.close()
   */
  async opendir(path: PathLike, options?: OpendirOptions | BufferEncoding | null): Promise<Dir> {
    const at = pathOf(path)
    const { encoding, recursive = false } = optionsOf<OpendirOptions>(options as OpendirOptions | string | null, {})
    const openReader: OpenReader = async directory => {
      const file = await this.#tree.opendir(directory)
      return typeof file === 'number' ? file : { file, reader: new DirectoryReader(this.#tree.access, file, recursive) }
    }
    const { file, reader } = unwrap(await openReader(at.text), 'opendir', at.shown)
    return new Dir(this.#tree, at.text, file, reader, encoding, recursive ? openReader : undefined)
  }

  readdir(path: PathLike, options: ReaddirOptions & { withFileTypes: true }): Promise<Dirent[]>
  readdir(path: PathLike, options: (ReaddirOptions & { encoding: 'buffer', withFileTypes?: false }) | 'buffer'): Promise<Buffer[]>
  readdir(path: PathLike, options?: (ReaddirOptions & { withFileTypes?: false }) | BufferEncoding | null): Promise<string[]>
  async readdir(path: PathLike, options?: ReaddirOptions | BufferEncoding | 'buffer' | null): Promise<(string | Buffer | Dirent)[]> {
    const at = pathOf(path)
    return await listTree(this.#tree, at.text, at.shown, optionsOf<ReaddirOptions>(options as ReaddirOptions | string | null, {}))
  }

  async readFile(path: PathLike | FileHandle, options: (ReadFileOptions & { encoding: BufferEncoding, flag?: OpenFlags }) | BufferEncoding): Promise<string>
  async readFile(path: PathLike | FileHandle, options?: (ReadFileOptions & { encoding?: null, flag?: OpenFlags }) | null): Promise<Buffer>
  async readFile(path: PathLike | FileHandle, options?: (ReadFileOptions & { flag?: OpenFlags }) | BufferEncoding | null): Promise<string | Buffer>
  async readFile(path: PathLike | FileHandle, options?: (ReadFileOptions & { flag?: OpenFlags }) | BufferEncoding | null): Promise<string | Buffer> {
    if (path instanceof FileHandle) return await path.readFile(options)
    const { flag = 'r', signal } = optionsOf<ReadFileOptions & { flag?: OpenFlags }>(options as ReadFileOptions | string | null, {})
    if (signal?.aborted) throw abortError(signal)
    const handle = await this.open(path, flag, 0o666)
    try {
      return await handle.readFile(options)
    } finally {
      await handle.close()
    }
  }

  async writeFile(path: PathLike | FileHandle, data: FileData, options?: (WriteFileOptions & { mode?: Mode, flag?: OpenFlags }) | BufferEncoding | null): Promise<void> {
    const all = optionsOf<WriteFileOptions & { mode?: Mode, flag?: OpenFlags }>(options as WriteFileOptions | string | null, {})
    if (all.signal?.aborted) throw abortError(all.signal)
    if (path instanceof FileHandle) return await path.writeFile(data, all)
    if (typeof data !== 'string' && !ArrayBuffer.isView(data) && !(typeof data === 'object' && data !== null && (Symbol.iterator in data || Symbol.asyncIterator in data))) {
      throw invalidType('data', 'of type string or an instance of Buffer, TypedArray, or DataView', data)
    }
    const handle = await this.open(path, all.flag ?? 'w', all.mode ?? 0o666)
    try {
      await handle.writeFile(data, all)
      if (all.flush) await handle.sync()
    } catch (error) {
      await handle.close().catch(() => {})
      throw error
    }
    await handle.close()
  }

  /**
   * @param options flags of renameat2(2)
   *
   * @example
   * const fs = await connect('/srv/shared')
   * await fs.writeFile('/a', 'first')
   * await fs.writeFile('/b', 'second')
   * await assert.rejects(fs.rename('/a', '/b', { noReplace: true }), { code: 'EEXIST' })
   * await fs.rename('/a', '/b', { exchange: true })
   * assert.equal(await fs.readFile('/a', 'utf8'), 'second')
   * await fs.close()
   */
  async rename(path: PathLike, newPath: PathLike, options: RenameOptions = {}): Promise<void> {
    const from = pathOf(path, 'oldPath')
    const to = pathOf(newPath, 'newPath')
    if (options.noReplace && options.exchange) throw invalidValue('options', options, 'cannot have both noReplace and exchange')
    const flags = (options.noReplace ? RENAME_NOREPLACE : 0) | (options.exchange ? RENAME_EXCHANGE : 0)
    unwrap(await this.#tree.rename(from.text, to.text, flags), 'rename', from.shown, to.shown)
  }

  /** Removes a file, or a tree with `recursive`. */
  async rm(path: PathLike, options: RmOptions = {}): Promise<void> {
    const at = pathOf(path)
    await removeTree(this.#tree, at.text, at.shown, options)
  }

  async rmdir(path: PathLike): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.rmdir(at.text), 'rmdir', at.shown)
  }

  /** @param length bytes that the file has afterwards */
  async truncate(path: PathLike, length = 0): Promise<void> {
    const handle = await this.open(path, 'r+')
    try {
      await handle.truncate(length)
    } finally {
      await handle.close()
    }
  }

  async unlink(path: PathLike): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.unlink(at.text), 'unlink', at.shown)
  }

  /** The value of an extended attribute. @throws FsError ENODATA when there is none */
  async getxattr(path: PathLike, name: string): Promise<Buffer> {
    return this.#getxattr(path, name, true, 'getxattr')
  }

  /** The same, of a symbolic link itself. */
  async lgetxattr(path: PathLike, name: string): Promise<Buffer> {
    return this.#getxattr(path, name, false, 'lgetxattr')
  }

  async #getxattr(path: PathLike, name: string, follow: boolean, syscall: string): Promise<Buffer> {
    const at = pathOf(path)
    return unwrap(await this.#tree.getxattr(at.text, pathOf(name, 'name').text, follow), syscall, at.shown)
  }

  /**
   * Sets an extended attribute, whether it is there or not.
   *
   * @example
   * const fs = await connect('/srv/shared', { xattr: true })
   * await fs.writeFile('/a', '')
   * await fs.setxattr('/a', 'user.language', 'en')
   * assert.deepEqual(await fs.listxattr('/a'), ['user.language'])
   * assert.equal(String(await fs.getxattr('/a', 'user.language')), 'en')
   * await fs.close()
   */
  async setxattr(path: PathLike, name: string, value: string | NodeJS.ArrayBufferView, options: XattrOptions = {}): Promise<void> {
    await this.#setxattr(path, name, value, options, true, 'setxattr')
  }

  async lsetxattr(path: PathLike, name: string, value: string | NodeJS.ArrayBufferView, options: XattrOptions = {}): Promise<void> {
    await this.#setxattr(path, name, value, options, false, 'lsetxattr')
  }

  async #setxattr(path: PathLike, name: string, value: string | NodeJS.ArrayBufferView, { create, replace }: XattrOptions, follow: boolean, syscall: string): Promise<void> {
    const at = pathOf(path)
    const bytes = typeof value === 'string' ? Buffer.from(value) : new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    unwrap(await this.#tree.setxattr(at.text, pathOf(name, 'name').text, bytes, (create ? 1 : 0) | (replace ? 2 : 0), follow), syscall, at.shown)
  }

  /** Names of extended attributes. */
  async listxattr(path: PathLike): Promise<string[]> {
    return this.#listxattr(path, true, 'listxattr')
  }

  async llistxattr(path: PathLike): Promise<string[]> {
    return this.#listxattr(path, false, 'llistxattr')
  }

  async #listxattr(path: PathLike, follow: boolean, syscall: string): Promise<string[]> {
    const at = pathOf(path)
    return unwrap(await this.#tree.listxattr(at.text, follow), syscall, at.shown).toString().split('\0').slice(0, -1)
  }

  async removexattr(path: PathLike, name: string): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.removexattr(at.text, pathOf(name, 'name').text, true), 'removexattr', at.shown)
  }

  async lremovexattr(path: PathLike, name: string): Promise<void> {
    const at = pathOf(path)
    unwrap(await this.#tree.removexattr(at.text, pathOf(name, 'name').text, false), 'lremovexattr', at.shown)
  }

  /** syncfs(2): everything that was written through the device is on its disk. */
  async syncfs(): Promise<void> {
    unwrap(await this.#tree.operations.syncfs(this.#tree.table.root), 'syncfs')
  }
}
