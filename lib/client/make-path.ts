/** mkdir of node:fs/promises with its parents. */
import { posix } from 'node:path'
import { errno } from '../errors.js'
import { S_IFDIR } from '../sys/file.js'
import { typeOf } from './attributes.js'
import { fsError } from './fs-error.js'
import type { Tree } from './tree.js'

/** @returns the first directory that was made, if any @throws FsError, which names the path `shown` */
export async function makePath(tree: Tree, path: string, shown: string, mode: number): Promise<string | undefined> {
  const missing: string[] = []
  for (let at = path; ;) {
    const error = await tree.mkdir(at, mode)
    if (error === -errno.ENOENT && /[^/]\/+[^/]/.test(at)) {
      missing.unshift(at)
      at = at.replace(/\/+[^/]+\/*$/, '') || '/'
      continue
    }
    if (error < 0 && error !== -errno.EEXIST) throw fsError(error, 'mkdir', shown)
    if (error < 0) {
      const attributes = await tree.stat(at, true)
      if (typeof attributes === 'number') throw fsError(attributes, 'mkdir', shown)
      if (typeOf(attributes) !== S_IFDIR) throw fsError(missing.length > 0 ? -errno.ENOTDIR : -errno.EEXIST, 'mkdir', shown)
    }
    let first = error === 0 ? at : undefined
    for (const below of missing) {
      const made = await tree.mkdir(below, mode)
      if (made < 0 && made !== -errno.EEXIST) throw fsError(made, 'mkdir', shown)
      // EEXIST: somebody else has made it meanwhile
      if (made === 0) first ??= below
    }
    return first === undefined || first.startsWith('/') ? first : posix.resolve('/', first)
  }
}
