/** Callbacks on paths. */
import { number64, onNode, type Callback, type Served } from './callback.js'
import type { Operation } from './addon.js'
import type { LibfuseThread } from './libfuse-thread.js'

type PathOperation = Extract<Operation,
  'access' | 'statfs' | 'getattr' | 'truncate' | 'utimens' | 'readlink' | 'chown' | 'chmod' | 'mknod' | 'unlink' | 'rename' | 'link' | 'symlink' | 'mkdir' | 'rmdir'>
type XattrOperation = Extract<Operation, 'setxattr' | 'getxattr' | 'listxattr' | 'removexattr'>

export function pathCallbacks(served: Served): Record<PathOperation, Callback> {
  const { tree, hidden } = served
  const { access } = tree
  return {
    access: (thread: LibfuseThread, path: string, mask: number) => tree.mayAccess(thread.path(path), mask),

    async statfs(thread: LibfuseThread, path: string) {
      const statistics = await tree.statfs(thread.path(path))
      if (typeof statistics === 'number') return statistics
      thread.putStatvfs(statistics)
      return 0
    },

    getattr: (thread: LibfuseThread, path: string) => onNode(served, thread.path(path), async node => {
      const attributes = await access.attributes(node)
      if (typeof attributes === 'number') return attributes
      thread.putStat(attributes)
      return 0
    }),

    async readlink(thread: LibfuseThread, path: string) {
      const target = await tree.readlink(thread.path(path))
      if (typeof target === 'number') return target
      thread.putLink(target)
      return 0
    },

    truncate: (thread: LibfuseThread, path: string, low: number, high: number) => onNode(served, thread.path(path), node => tree.changes.size(node, number64(low, high), undefined)),
    utimens: (thread: LibfuseThread, path: string) => onNode(served, thread.path(path), node => tree.changes.times(node, thread.times)),
    chown: (thread: LibfuseThread, path: string, uid: number, gid: number) => onNode(served, thread.path(path), node => tree.changes.owner(node, uid, gid)),
    chmod: (thread: LibfuseThread, path: string, mode: number) => onNode(served, thread.path(path), node => tree.changes.mode(node, mode)),

    mknod: (thread: LibfuseThread, path: string, mode: number, rdev: number) => tree.mknod(thread.path(path), mode, rdev),
    mkdir: (thread: LibfuseThread, path: string, mode: number) => tree.mkdir(thread.path(path), mode),
    rmdir: (thread: LibfuseThread, path: string) => tree.rmdir(thread.path(path)),
    symlink: (thread: LibfuseThread, target: string, path: string) => tree.symlink(thread.path(target), thread.destination(path)),

    unlink(thread: LibfuseThread, path: string) {
      const at = thread.path(path)
      return hidden.drop(at) ? 0 : tree.unlink(at)
    },

    rename(thread: LibfuseThread, from: string, to: string) {
      const [source, target] = [thread.path(from), thread.destination(to)]
      if (!hidden.isHiding(source, target)) return tree.rename(source, target, 0)
      return tree.withNode(source, false, async node => {
        const error = await tree.unlink(source)
        if (error === 0) hidden.hide(target, node)
        return error
      })
    },

    link(thread: LibfuseThread, from: string, to: string) {
      const [source, target] = [thread.path(from), thread.destination(to)]
      const removed = hidden.find(source)
      return removed ? tree.linkNode(removed, target) : tree.link(source, target)
    },
  }
}

export function xattrCallbacks(served: Served): Record<XattrOperation, Callback> {
  const { tree, hidden } = served
  const { operations } = tree
  return {
    async getxattr(thread: LibfuseThread, path: string, name: string) {
      const [at, attribute] = [thread.path(path), thread.attributeName(name)]
      const removed = hidden.find(at)
      const value = await (removed ? operations.getxattr(removed, attribute) : tree.getxattr(at, attribute, false))
      return typeof value === 'number' ? value : thread.putXattr(value)
    },

    async listxattr(thread: LibfuseThread, path: string) {
      const at = thread.path(path)
      const removed = hidden.find(at)
      const names = await (removed ? operations.listxattr(removed) : tree.listxattr(at, false))
      return typeof names === 'number' ? names : thread.putXattrNames(names)
    },

    setxattr(thread: LibfuseThread, path: string, name: string) {
      const [at, attribute] = [thread.path(path), thread.attributeName(name)]
      const removed = hidden.find(at)
      const { xattrValue, xattrFlags } = thread
      return removed ? operations.setxattr(removed, attribute, xattrValue, xattrFlags) : tree.setxattr(at, attribute, xattrValue, xattrFlags, false)
    },

    removexattr(thread: LibfuseThread, path: string, name: string) {
      const [at, attribute] = [thread.path(path), thread.attributeName(name)]
      const removed = hidden.find(at)
      return removed ? operations.removexattr(removed, attribute) : tree.removexattr(at, attribute, false)
    },
  }
}
