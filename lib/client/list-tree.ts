/** readdir of node:fs/promises: the names in a directory, or in a tree of them. */
import { S_IFDIR, S_IFLNK } from '../sys/file.js'
import { encodeName, type EncodingOption } from './arguments.js'
import { typeOf } from './attributes.js'
import { entryType, join } from './dir.js'
import { entriesOf } from './directory-reader.js'
import { Dirent } from './dirent.js'
import { abortError, unwrap } from './fs-error.js'
import type { Tree } from './tree.js'

export interface ReaddirOptions {
  encoding?: EncodingOption
  withFileTypes?: boolean
  recursive?: boolean
  signal?: AbortSignal
}

/** @throws FsError, which names the path `shown` or what is below it; AbortError */
export async function listTree(tree: Tree, path: string, shown: string, { encoding, withFileTypes = false, recursive = false, signal }: ReaddirOptions): Promise<(string | Buffer | Dirent)[]> {
  const found: (string | Buffer | Dirent)[] = []
  for (let directories = ['']; directories.length > 0;) {
    const next: string[] = []
    for (const directory of directories) {
      if (signal?.aborted) throw abortError(signal)
      const full = directory === '' ? path : join(path, directory)
      const said = directory === '' ? shown : join(shown, directory)
      const entries = unwrap(await entriesOf(tree, full, recursive, signal), 'scandir', said, undefined, signal)
      for (const entry of entries) {
        const relative = directory === '' ? entry.name : join(directory, entry.name)
        const type = withFileTypes || recursive ? await entryType(tree, full, entry) : 0
        if (recursive && (type === S_IFDIR || (!withFileTypes && await leadsToDirectory(tree, full, entry.name, type)))) next.push(relative)
        found.push(withFileTypes ? new Dirent(encodeName(entry.name, encoding), type, said) : encodeName(relative, encoding))
      }
    }
    directories = next
  }
  return found
}

/** Names alone do not tell links from directories: node:fs follows them then. */
async function leadsToDirectory(tree: Tree, directory: string, name: string, type: number): Promise<boolean> {
  if (type !== S_IFLNK) return false
  const attributes = await tree.stat(join(directory, name), true)
  return typeof attributes !== 'number' && typeOf(attributes) === S_IFDIR
}
