/** Callbacks on open files and directories. */
import { DirectoryReader } from '../client/directory-reader.js'
import type { OpenFile } from '../client/open-file.js'
import { errno } from '../errors.js'
import { O_ACCMODE, O_CREAT, O_RDONLY, S_IFDIR } from '../sys/file.js'
import { number64, type Callback, type Served } from './callback.js'
import type { Operation } from './addon.js'
import type { LibfuseThread } from './libfuse-thread.js'

type FileOperation = Extract<Operation,
  'open' | 'create' | 'opendir' | 'read' | 'write' | 'flush' | 'fsync' | 'fsyncdir' | 'release' | 'releasedir' | 'fgetattr' | 'ftruncate' | 'readdir'>

export function fileCallbacks({ tree, files, hidden }: Served): Record<FileOperation, Callback> {
  const { access, operations } = tree

  async function opened(thread: LibfuseThread, opening: Promise<OpenFile | number>): Promise<number> {
    const file = await opening
    if (typeof file === 'number') return file
    thread.putHandle(files.add(file))
    return 0
  }

  /**
   * Opens what the kernel has looked up. When its path is gone meanwhile, the kernel is to look again:
   * another process may be making and removing it in turn, and ESTALE makes open(2) start over.
   */
  async function openedAgain(thread: LibfuseThread, opening: Promise<OpenFile | number>): Promise<number> {
    const error = await opened(thread, opening)
    return error === -errno.ENOENT ? -errno.ESTALE : error
  }

  async function sync(number: number, dataOnly: number): Promise<number> {
    return await files.get(number)?.fsync(dataOnly !== 0) ?? -errno.EBADF
  }

  function release(_thread: LibfuseThread, _path: string, number: number): number {
    files.release(number)
    return 0
  }

  return {
    open(thread: LibfuseThread, path: string, flags: number) {
      const at = thread.path(path)
      const removed = hidden.find(at)
      return openedAgain(thread, removed ? tree.opener.node(removed, flags) : tree.open(at, flags, 0))
    },

    // the addon passes no flags
    create: (thread: LibfuseThread, path: string, mode: number) => opened(thread, tree.open(thread.path(path), thread.openFlags | O_CREAT, mode)),
    opendir: (thread: LibfuseThread, path: string) => openedAgain(thread, tree.opendir(thread.path(path))),

    async read(_thread: LibfuseThread, _path: string, number: number, buffer: Buffer, length: number, low: number, high: number) {
      return await files.get(number)?.read(buffer.subarray(0, length), number64(low, high)) ?? -errno.EBADF
    },

    async write(_thread: LibfuseThread, _path: string, number: number, buffer: Buffer, length: number, low: number, high: number) {
      return await files.get(number)?.write(buffer.subarray(0, length), number64(low, high)) ?? -errno.EBADF
    },

    async flush(_thread: LibfuseThread, _path: string, number: number) {
      const file = files.get(number)?.file
      if (file === undefined) return -errno.EBADF
      // of a file that is only read there is nothing to be told
      return (file.flags & O_ACCMODE) === O_RDONLY ? 0 : operations.flush(file)
    },

    fsync: (_thread: LibfuseThread, _path: string, dataOnly: number, number: number) => sync(number, dataOnly),
    fsyncdir: (_thread: LibfuseThread, _path: string, dataOnly: number, number: number) => sync(number, dataOnly),
    release,
    releasedir: release,

    async fgetattr(thread: LibfuseThread, _path: string, number: number) {
      const file = files.get(number)?.file
      if (file === undefined) return -errno.EBADF
      const attributes = await access.attributes(file.node, file)
      if (typeof attributes === 'number') return attributes
      thread.putStat(attributes)
      return 0
    },

    async ftruncate(_thread: LibfuseThread, _path: string, number: number, low: number, high: number) {
      return await files.get(number)?.truncate(number64(low, high)) ?? -errno.EBADF
    },

    // the addon passes no handle
    async readdir(thread: LibfuseThread) {
      const file = files.get(thread.handle)?.file
      if (file === undefined) return -errno.EBADF
      const entries = await new DirectoryReader(access, file, false).rest()
      if (typeof entries === 'number') return entries
      for (const name of ['.', '..']) thread.putEntry(name, file.node.attributes.ino, S_IFDIR)
      for (const { name, ino, type } of entries) thread.putEntry(name, ino, type)
      return 0
    },
  }
}
