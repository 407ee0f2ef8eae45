/** rm of node:fs/promises: files, or trees of them. */
import { setTimeout as sleep } from 'node:timers/promises'
import { errno } from '../errors.js'
import { S_IFDIR } from '../sys/file.js'
import { typeOf } from './attributes.js'
import { join } from './dir.js'
import { entriesOf } from './directory-reader.js'
import { fsError, systemError } from './fs-error.js'
import type { Tree } from './tree.js'

export interface RmOptions {
  /** What is not there is no error. */
  force?: boolean
  recursive?: boolean
  /** How often a directory that others fill, or a busy one, is tried again. */
  maxRetries?: number
  /** Milliseconds between, more each time. */
  retryDelay?: number
}

const RETRIED = new Set([-errno.EBUSY, -errno.EMFILE, -errno.ENFILE, -errno.ENOTEMPTY, -errno.EPERM])

/** @throws FsError; ERR_FS_EISDIR for a directory without `recursive` */
export async function removeTree(tree: Tree, path: string, shown: string, options: RmOptions): Promise<void> {
  const { force = false, recursive = false } = options
  const attributes = await tree.stat(path, false)
  if (typeof attributes === 'number') {
    if (attributes === -errno.ENOENT && force) return
    throw fsError(attributes, 'lstat', shown)
  }
  if (typeOf(attributes) === S_IFDIR && !recursive) throw systemError('ERR_FS_EISDIR', 'Path is a directory', errno.EISDIR, 'rm', shown)
  await remove(tree, path, shown, typeOf(attributes) === S_IFDIR, options)
}

async function remove(tree: Tree, path: string, shown: string, isDirectory: boolean, options: RmOptions): Promise<void> {
  const { maxRetries = 0, retryDelay = 100 } = options
  for (let tries = 0; ; tries++) {
    const error = isDirectory ? await removeDirectory(tree, path, shown, options) : await tree.unlink(path)
    if (error === 0 || error === -errno.ENOENT) return
    if (tries >= maxRetries || !RETRIED.has(error)) throw fsError(error, isDirectory ? 'rmdir' : 'unlink', shown)
    await sleep((tries + 1) * retryDelay)
  }
}

async function removeDirectory(tree: Tree, path: string, shown: string, options: RmOptions): Promise<number> {
  const error = await tree.rmdir(path)
  if (error !== -errno.ENOTEMPTY && error !== -errno.EEXIST) return error
  const entries = await entriesOf(tree, path, true)
  if (typeof entries === 'number') return entries
  for (const { name, type } of entries) {
    const below = join(path, name)
    let isDirectory = type === S_IFDIR
    if (type === 0) {
      const attributes = await tree.stat(below, false)
      if (typeof attributes === 'number') continue
      isDirectory = typeOf(attributes) === S_IFDIR
    }
    await remove(tree, below, join(shown, name), isDirectory, options)
  }
  return tree.rmdir(path)
}
