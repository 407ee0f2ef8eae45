/** Operations on names: making, removing, renaming, linking, listing. */
import * as f from '../../lib/sys/file.js'
import { setfsgid, setfsuid, setgroups } from '../../lib/sys/credentials.js'
import { result } from '../../lib/sys/libc.js'
import { calls, SEEK_SET } from './calls.js'
import type { Generator } from './generator.js'
import { LONG_NAME } from './generator.js'
import { list } from './listing.js'
import { operation, type Operation } from './operation.js'
import { argument, cString, type Side } from './side.js'

const S_IFIFO = 0o010000
const S_IFSOCK = 0o140000
const S_IFCHR = 0o020000
const RENAME_FLAGS = [1, 2, 4, 3, 5, 8] as const

interface User { uid: number, gid: number, groups: readonly number[] }

/** Who acts; number 0 is root. Nobody that a system has. */
export const users: readonly User[] = [
  { uid: 0, gid: 0, groups: [] },
  { uid: 61001, gid: 62001, groups: [] },
  { uid: 61002, gid: 62002, groups: [62001] },
]

/** For this thread, on both sides. */
export function become(number: number): void {
  const { uid, gid, groups } = users[number]!
  groups.forEach((group, i) => { argument.view.setUint32(i * 4, group, true) })
  setgroups(groups.length, argument.address)
  setfsgid(gid)
  setfsuid(uid)
}

function target(g: Generator): string {
  const i = g.below(20)
  if (i < 8) return g.name()
  if (i < 12) return g.pick(g.dirs)
  if (i < 14) return `../${g.name()}`
  if (i < 16) return `${g.pick(g.dirs)}/${g.name()}`
  return g.pick(['.', '..', './', '', 'nowhere/at/all', `${LONG_NAME}/${LONG_NAME}`, 'x/'.repeat(2047)])
}

function listed(side: Side, fd: number): void {
  const entries = list(fd)
  if (typeof entries === 'number') {
    side.note('ret', entries)
    return
  }
  side.note('entries', entries.map(({ name, type }) => `${name}:${type}`).sort().join('\n'))
}

export const nameOperations: Record<string, Operation> = {
  mkdir: operation('names', 6, g => [g.fresh(), g.chance(80) ? 0o777 : g.newMode()], (side, path, mode) => {
    side.ret(calls.mkdirat(side.dir(path), side.at(path), mode))
  }, (g, path) => { g.madeDir(path) }),

  rmdir: operation('names', 3, g => [g.dir()], (side, path) => {
    side.ret(calls.unlinkat(side.dir(path), side.at(path), f.AT_REMOVEDIR))
  }),

  unlink: operation('names', 6, g => [g.file()], (side, path) => {
    side.ret(calls.unlinkat(side.dir(path), side.at(path), 0))
  }),

  rename: operation('names', 6, g => [g.any(), g.chance(50) ? g.any() : g.fresh()], (side, from, to) => {
    side.ret(calls.renameat2(side.dir(from), side.at(from), side.dir(to), side.at(to), 0))
  }, (g, from, to) => { g.dirs.includes(from) ? g.madeDir(to) : g.madeFile(to) }),

  rename2: operation('names', 4, g => [g.any(), g.chance(60) ? g.any() : g.fresh(), g.pick(g.groups.has('users') && g.lacks('whiteouts of users') ? [1, 2, 3, 8] : RENAME_FLAGS)], (side, from, to, flags) => {
    side.ret(calls.renameat2(side.dir(from), side.at(from), side.dir(to), side.at(to), flags))
  }, (g, _from, to) => { g.madeFile(to) }),

  link: operation('links', 5, g => [g.file(), g.fresh(), g.chance(20) ? f.AT_SYMLINK_FOLLOW : 0], (side, from, to, flags) => {
    side.ret(calls.linkat(side.dir(from), side.at(from), side.dir(to), side.at(to), flags))
  }, (g, _from, to) => { g.madeFile(to) }),

  linkfd: operation('links', 2, g => [g.slot(), g.fresh()], (side, slot, to) => {
    // of a slot that is empty the path is one that never exists
    side.ret(calls.linkat(f.AT_FDCWD, cString(`/proc/self/fd/${side.fd(slot)}`), side.dir(to), side.at(to), f.AT_SYMLINK_FOLLOW))
  }, (g, _slot, to) => { g.madeFile(to) }),

  symlink: operation('links', 4, g => [target(g), g.fresh()], (side, to, path) => {
    side.ret(calls.symlinkat(cString(to), side.dir(path), side.at(path)))
  }, (g, _to, path) => { g.madeFile(path) }),

  readlink: operation('links', 3, g => [g.file(), g.chance(70) ? 4096 : g.below(20)], (side, path, room) => {
    side.dataBytes = Math.max(0, side.ret(calls.readlinkat(side.dir(path), side.at(path), side.data.address, room)))
  }),

  mknod: operation('special', 2, g => [g.fresh(), g.pick([S_IFIFO, S_IFSOCK, f.S_IFREG, 0, f.S_IFDIR, S_IFCHR]) | g.newMode()], (side, path, mode) => {
    // of the devices the one that nobody can open, which is a whiteout too
    side.ret(calls.mknodat(side.dir(path), side.at(path), mode, 0))
  }, (g, path) => { g.madeFile(path) }),

  readdir: operation('directories', 3, g => [g.dir()], (side, path) => {
    const fd = result(calls.openat(side.dir(path), side.at(path), f.O_RDONLY | f.O_DIRECTORY | f.O_CLOEXEC, 0))
    side.note('ret', Math.min(fd, 0))
    if (fd < 0) return
    listed(side, fd)
    calls.close(fd)
  }),

  fdreaddir: operation('directories', 2, g => [g.slot()], (side, slot) => {
    if (side.ret(calls.lseek(side.fd(slot), 0, SEEK_SET)) === 0) listed(side, side.fd(slot))
  }),

  // a part of a listing, then the rest of it from where an entry says that it goes on
  seekdir: operation('directories', 2, g => [g.dir(), g.below(12), 280 + g.below(600)], (side, path, entry, room) => {
    const fd = result(calls.openat(side.dir(path), side.at(path), f.O_RDONLY | f.O_DIRECTORY | f.O_CLOEXEC, 0))
    side.note('ret', Math.min(fd, 0))
    if (fd < 0) return
    const all = list(fd, room)
    if (typeof all !== 'number' && all.length > 0) {
      const from = Math.min(entry, all.length - 1)
      side.note('seek', calls.lseek(fd, all[from]!.offset, SEEK_SET) >= 0 ? 0 : -1)
      const rest = list(fd)
      side.note('rest', typeof rest === 'number' ? rest : rest.map(one => one.name).join('\n') === all.slice(from + 1).map(one => one.name).join('\n') ? 'the same' : 'another')
      side.note('count', all.length)
    }
    calls.close(fd)
  }),

  getcwd: operation('directories', 1, g => [g.slot()], (side, slot) => {
    if (side.ret(calls.fchdir(side.fd(slot))) < 0) return
    const address = calls.getcwd(side.data.address, 8192)
    if (address === 0) {
      side.ret(-1, 'getcwd')
      return
    }
    const path = side.data.bytes.subarray(0, side.data.bytes.indexOf(0))
    const cwd = Buffer.from(path).toString('latin1')
    side.note('getcwd', cwd.startsWith(side.path) ? cwd.slice(side.path.length) : cwd)
  }),

  as: operation('users', 1, g => [g.below(users.length)], (_side, user) => { become(user) }),

  umask: operation('open', 1, g => [g.pick([0, 0o22, 0o77, 0o27, 0o777])], (_side, mask) => { calls.umask(mask) }),
}
