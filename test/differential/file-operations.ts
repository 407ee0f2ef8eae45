/** Operations on open files and their data. */
import * as f from '../../lib/sys/file.js'
import { result } from '../../lib/sys/libc.js'
import { calls, F_GETFL, F_SETFL, MAP_PRIVATE, MAP_SHARED, MS_SYNC, PROT_READ, PROT_WRITE, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET } from './calls.js'
import type { Generator } from './generator.js'
import { operation, type Operation } from './operation.js'
import { argument, cString, patternAt, type Side } from './side.js'

const O_NOATIME = 0o1000000
const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
const FALLOC_FL_ZERO_RANGE = 16
const OPEN_FLAGS = [f.O_EXCL, f.O_TRUNC, f.O_APPEND, f.O_NOFOLLOW] as const
const RARE_FLAGS = [f.O_DIRECTORY, f.O_PATH, f.O_SYNC, f.O_DSYNC, O_NOATIME, f.O_DIRECT] as const
/** What F_GETFL says of how a file was opened. */
const SHOWN_FLAGS = f.O_ACCMODE | f.O_APPEND | f.O_NONBLOCK | f.O_SYNC | f.O_PATH | f.O_DIRECT
const RWF_APPEND = 16
const ODD_OFFSETS = [-1, -4096] as const
/** No file gets much larger, so that trees can be compared often. */
const FILE_BYTES = 2 << 20

function openFlags(g: Generator): number {
  let flags = g.pick([f.O_RDONLY, f.O_RDWR, f.O_RDWR, f.O_WRONLY, f.O_ACCMODE]) | g.bits(OPEN_FLAGS, 12) | (g.chance(20) ? g.bits(RARE_FLAGS, 15) : 0)
  if (g.chance(50)) flags |= f.O_CREAT
  // ext4 wants direct transfers to be aligned, which the mount does not
  if (g.abilities.backing === 'ext4') flags &= ~f.O_DIRECT
  if (g.lacks('O_PATH')) flags &= ~f.O_PATH
  // opening a FIFO must not block
  return flags | f.O_NONBLOCK
}

function offsetOf(g: Generator): number {
  return g.chance(1) ? g.pick(ODD_OFFSETS) : g.offset()
}

/** An iovec of buffers one behind the other. */
function vector(address: number, parts: number, lengthBytes: number): number {
  for (let i = 0; i < parts; i++) {
    const from = Math.floor(lengthBytes * i / parts)
    argument.view.setBigUint64(i * 16, BigInt(address + from), true)
    argument.view.setBigUint64(i * 16 + 8, BigInt(Math.floor(lengthBytes * (i + 1) / parts) - from), true)
  }
  return argument.address
}

/** Fills `argument` with the statx of an open file. @returns whether it is a regular file */
function statFile(fd: number): boolean {
  if (result(calls.statx(fd, cString(''), f.AT_EMPTY_PATH, f.STATX_BASIC_STATS, argument.address)) < 0) return false
  return (argument.view.getUint16(28, true) & f.S_IFMT) === f.S_IFREG
}

/** The size of the regular file in a slot; 0 of anything else. */
function fileSize(side: Side, slot: number): number {
  return side.decide(({ fds }) => statFile(fds[slot]!) ? Number(argument.view.getBigUint64(40, true)) : 0)
}

/** Whether a write at the end of the file would make it too large. */
function full(side: Side, slot: number): boolean {
  return fileSize(side, slot) > FILE_BYTES
}

/** Whether two slots have the same file. */
function sameFile(side: Side, one: number, other: number): boolean {
  const inode = (fd: number): bigint => statFile(fd) ? argument.view.getBigUint64(32, true) : -1n
  return side.decide(({ fds }) => inode(fds[one]!) === inode(fds[other]!) ? 1 : 0) !== 0
}

/** Whether the slot has a regular file. */
function isFile(side: Side, slot: number): boolean {
  return side.decide(({ fds }) => statFile(fds[slot]!) ? 1 : 0) !== 0
}

function read(side: Side, value: number): void {
  side.dataBytes = Math.max(0, side.ret(value))
}

/** Maps some pages of a file that are within it. @returns how many bytes of them are in the file */
function mapped(side: Side, slot: number, page: number, pages: number, protection: number, flags: number, use: (address: number, lengthBytes: number) => void): void {
  const fd = side.fd(slot)
  const lengthBytes = Math.min(fileSize(side, slot) - page * 4096, pages * 4096)
  if (lengthBytes <= 0) return
  const address = calls.mmap(0, lengthBytes, protection, flags, fd, page * 4096)
  // MAP_FAILED does not fit a number
  if (typeof address !== 'number') {
    side.ret(-1)
    return
  }
  use(address, lengthBytes)
  calls.munmap(address, lengthBytes)
}

export const fileOperations: Record<string, Operation> = {
  open: operation('open', 10, g => [g.slot(), g.chance(50) ? g.file() : g.fresh(), openFlags(g), g.newMode()], (side, slot, path, flags, mode) => {
    side.open(slot, calls.openat(side.dir(path), side.at(path), flags | f.O_CLOEXEC, mode))
  }, (g, _slot, path, flags) => { if ((flags & f.O_CREAT) !== 0) g.madeFile(path) }),

  create: operation('open', 5, g => [g.slot(), g.fresh(), g.newMode()], (side, slot, path, mode) => {
    side.open(slot, calls.openat(side.dir(path), side.at(path), f.O_RDWR | f.O_CREAT | f.O_CLOEXEC | f.O_NONBLOCK, mode))
  }, (g, _slot, path) => { g.madeFile(path) }),

  opendir: operation('directories', 3, g => [g.slot(), g.dir(), f.O_DIRECTORY | (g.chance(20) && !g.lacks('O_PATH') ? f.O_PATH : 0) | (g.chance(20) ? f.O_NOFOLLOW : 0)], (side, slot, path, flags) => {
    side.open(slot, calls.openat(side.dir(path), side.at(path), flags | f.O_CLOEXEC, 0))
  }),

  tmpfile: operation('open', 1, g => [g.slot(), g.dir(), g.pick([f.O_RDWR, f.O_WRONLY, f.O_RDONLY]) | (g.chance(20) ? f.O_EXCL : 0), g.newMode()], (side, slot, path, flags, mode) => {
    side.open(slot, calls.openat(side.dir(path), side.at(path), flags | f.O_TMPFILE | f.O_CLOEXEC, mode))
  }),

  close: operation('open', 4, g => [g.slot()], (side, slot) => { side.closeSlot(slot) }),

  dup: operation('open', 1, g => [g.slot(), g.slot()], (side, from, to) => {
    if (from !== to && side.fd(from) >= 0) side.open(to, calls.fcntl(side.fd(from), 1030, 0))
  }),

  getfl: operation('open', 1, g => [g.slot()], (side, slot) => {
    const flags = result(calls.fcntl(side.fd(slot), F_GETFL, 0))
    side.note('flags', flags < 0 ? flags : flags & SHOWN_FLAGS)
  }),

  setfl: operation('open', 1, g => [g.slot(), f.O_NONBLOCK | g.bits([f.O_APPEND, O_NOATIME], 50)], (side, slot, flags) => {
    side.ret(calls.fcntl(side.fd(slot), F_SETFL, flags))
  }),

  write: operation('data', 8, g => [g.slot(), g.length(), g.below(1000)], (side, slot, length, choice) => {
    if (!full(side, slot)) side.ret(calls.write(side.fd(slot), patternAt(choice, length), length))
  }),

  pwrite: operation('data', 12, g => [g.slot(), offsetOf(g), g.length(), g.below(1000)], (side, slot, offset, length, choice) => {
    if (!full(side, slot)) side.ret(calls.pwrite(side.fd(slot), patternAt(choice, length), length, offset))
  }),

  pwritev2: operation('data', 3, g => [g.slot(), g.chance(20) ? -1 : g.offset(), g.length(), 1 + g.below(5), g.chance(20) ? RWF_APPEND : 0, g.below(1000)], (side, slot, offset, length, parts, flags, choice) => {
    if (!full(side, slot)) side.ret(calls.pwritev2(side.fd(slot), vector(patternAt(choice, length), parts, length), parts, offset, flags))
  }),

  read: operation('data', 6, g => [g.slot(), g.length()], (side, slot, length) => {
    read(side, calls.read(side.fd(slot), side.data.address, length))
  }),

  pread: operation('data', 10, g => [g.slot(), offsetOf(g), g.length()], (side, slot, offset, length) => {
    read(side, calls.pread(side.fd(slot), side.data.address, length, offset))
  }),

  preadv2: operation('data', 3, g => [g.slot(), g.chance(20) ? -1 : g.offset(), g.length(), 1 + g.below(5)], (side, slot, offset, length, parts) => {
    read(side, calls.preadv2(side.fd(slot), vector(side.data.address, parts, length), parts, offset, 0))
  }),

  lseek: operation('data', 4, g => [g.slot(), g.chance(5) ? -g.offset() : g.offset(), g.pick([SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END])], (side, slot, offset, whence) => {
    // offsets of directories mean nothing, and setting them makes later listings incomparable
    if (fileSize(side, slot) > 0 && offset < FILE_BYTES) side.ret(calls.lseek(side.fd(slot), offset, whence))
  }),

  ftruncate: operation('data', 4, g => [g.slot(), g.chance(2) ? -1 : g.offset()], (side, slot, size) => {
    side.ret(calls.ftruncate(side.fd(slot), size))
  }),

  truncate: operation('data', 3, g => [g.absolute(g.file()), g.chance(2) ? -1 : g.offset()], (side, path, size) => {
    side.ret(calls.truncate(side.at(path), size))
  }),

  fsync: operation('data', 2, g => [g.slot()], (side, slot) => { side.ret(calls.fsync(side.fd(slot))) }),
  fdatasync: operation('data', 1, g => [g.slot()], (side, slot) => { side.ret(calls.fdatasync(side.fd(slot))) }),

  fallocate: operation('space', 5, g => {
    const allowed = [FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE]
    // ext4 finds data where an allocated block was only read
    if (g.abilities.backing === 'tmpfs' || !g.groups.has('seek')) allowed.push(0, FALLOC_FL_KEEP_SIZE)
    if (g.abilities.backing === 'ext4' && !g.groups.has('seek')) allowed.push(FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)
    return [g.slot(), g.pick(allowed), offsetOf(g), g.chance(3) ? 0 : 1 + g.below(100_000)]
  }, (side, slot, mode, offset, length) => {
    side.ret(calls.fallocate(side.fd(slot), mode, offset, length))
  }),

  seekdata: operation('seek', 4, g => [g.slot(), offsetOf(g), g.pick([SEEK_DATA, SEEK_HOLE]), g.abilities.writeback ? 1 : 0], (side, slot, offset, whence, sync) => {
    if (fileSize(side, slot) === 0) return
    // see `abilities`
    if (sync) side.ret(calls.fdatasync(side.fd(slot)), 'fdatasync')
    side.ret(calls.lseek(side.fd(slot), offset, whence))
  }),

  copyrange: operation('copy', 4, g => [g.slot(), g.offset(), g.slot(), g.offset(), g.length()], (side, from, fromOffset, to, toOffset, length) => {
    argument.view.setBigInt64(0, BigInt(fromOffset), true)
    argument.view.setBigInt64(8, BigInt(toOffset), true)
    side.ret(calls.copyFileRange(side.fd(from), argument.address, side.fd(to), argument.address + 8, length, 0))
    side.note('offsets', `${argument.view.getBigInt64(0, true)} ${argument.view.getBigInt64(8, true)}`)
  }),

  copynext: operation('copy', 1, g => [g.slot(), g.slot(), g.length()], (side, from, to, length) => {
    if (!full(side, to)) side.ret(calls.copyFileRange(side.fd(from), 0, side.fd(to), 0, length, 0))
  }),

  sendfile: operation('copy', 2, g => [g.slot(), g.slot(), g.length()], (side, to, from, length) => {
    // a directory that was read is at a place beyond what ext4 allows a file, and not what FUSE does (s_maxbytes);
    // of one file, pages of the source change while they are in the pipe between the two
    if (isFile(side, from) && !full(side, to) && !sameFile(side, to, from)) side.ret(calls.sendfile(side.fd(to), side.fd(from), 0, length))
  }),

  mapread: operation('mmap', 4, g => [g.slot(), g.below(20), 1 + g.below(8), g.pick([MAP_SHARED, MAP_PRIVATE])], (side, slot, page, pages, flags) => {
    mapped(side, slot, page, pages, PROT_READ, flags, (address, lengthBytes) => {
      calls.memcpy(side.data.address, address, lengthBytes)
      side.dataBytes = lengthBytes
    })
  }),

  mapwrite: operation('mmap', 4, g => [g.slot(), g.below(20), 1 + g.below(8), g.below(5000), 1 + g.below(9000), g.below(1000), g.below(2)], (side, slot, page, pages, offset, length, choice, sync) => {
    mapped(side, slot, page, pages, PROT_READ | PROT_WRITE, MAP_SHARED, (address, lengthBytes) => {
      const bytes = Math.min(length, lengthBytes - offset)
      if (bytes <= 0) return
      calls.memcpy(address + offset, patternAt(choice, bytes), bytes)
      if (sync) side.ret(calls.msync(address, lengthBytes, MS_SYNC), 'msync')
    })
  }),
}
