/**
 * Messages of Unix stream sockets, and the file descriptors that travel with them.
 *
 * Layouts: `struct msghdr` and `struct cmsghdr` as glibc declares them for 64-bit systems
 * (bits/socket.h; the kernel's `user_msghdr`, include/linux/socket.h). They are the same on x86-64 and
 * arm64.
 *
 * Messages are staged in one scratch buffer per thread: every call copies and returns at once.
 */
import { errno } from '../errors.js'
import { defineStruct } from '../wire/struct.js'
import { setU64 } from '../wire/u64.js'
import { close } from './io.js'
import { bind, result } from './libc.js'
import { scratch, type Region } from './memory.js'

const c_sendmsg = bind('int64_t sendmsg(int, uintptr_t, int)')
const c_recvmsg = bind('int64_t recvmsg(int, uintptr_t, int)')
const c_recv = bind('int64_t recv(int, uintptr_t, size_t, int)')

const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_PEEK = 2
const MSG_CTRUNC = 8
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x4000_0000

/** Bytes that one call sends or receives at most. */
export const SOCKET_BUFFER_BYTES = 8192
/** File descriptors that one call receives at most. */
export const SOCKET_MAX_FDS = 32
/** File descriptors that one call sends at most: the kernel's SCM_MAX_FD. */
export const SOCKET_MAX_SEND_FDS = 253

const Msghdr = defineStruct('msghdr', 56, {
  msg_name: 'u64', msg_namelen: 'u32', pad0: 'u32', msg_iov: 'u64', msg_iovlen: 'u64',
  msg_control: 'u64', msg_controllen: 'u64', msg_flags: 'i32', pad1: 'u32',
})
const Cmsghdr = defineStruct('cmsghdr', 16, { cmsg_len: 'u64', cmsg_level: 'i32', cmsg_type: 'i32' })

const CONTROL_BYTES = Cmsghdr.SIZE + 4 * SOCKET_MAX_FDS
const IOV_AT = Msghdr.SIZE
const CONTROL_AT = IOV_AT + 16
const DATA_AT = 2048

let buffer: Region | undefined

function staging(): Region {
  return buffer ??= scratch(DATA_AT + SOCKET_BUFFER_BYTES)
}

function prepare(lengthBytes: number, controlBytes: number): Region {
  const region = staging()
  const { view, address } = region
  setU64(view, Msghdr.msg_name, 0)
  view.setUint32(Msghdr.msg_namelen, 0, true)
  setU64(view, Msghdr.msg_iov, address + IOV_AT)
  setU64(view, Msghdr.msg_iovlen, 1)
  setU64(view, Msghdr.msg_control, controlBytes === 0 ? 0 : address + CONTROL_AT)
  setU64(view, Msghdr.msg_controllen, controlBytes)
  view.setInt32(Msghdr.msg_flags, 0, true)
  setU64(view, IOV_AT, address + DATA_AT)
  setU64(view, IOV_AT + 8, lengthBytes)
  return region
}

/**
 * Sends bytes, and file descriptors with the first of them. Does not wait.
 *
 * @param bytes at least one and at most SOCKET_BUFFER_BYTES
 * @param fds at most SOCKET_MAX_SEND_FDS; the peer gets duplicates, the caller keeps its own
 * @returns how many bytes went; fewer than given means that the rest, without the fds, must follow; or −errno
 */
export function sendmsg(fd: number, bytes: Uint8Array, fds: readonly number[] = []): number {
  if (fds.length > SOCKET_MAX_SEND_FDS) return -errno.EINVAL
  const length = Math.min(bytes.length, SOCKET_BUFFER_BYTES)
  // an odd number of descriptors is padded to CMSG_SPACE
  const region = prepare(length, fds.length === 0 ? 0 : (Cmsghdr.SIZE + 4 * fds.length + 7) & ~7)
  if (fds.length > 0) {
    setU64(region.view, CONTROL_AT + Cmsghdr.cmsg_len, Cmsghdr.SIZE + 4 * fds.length)
    region.view.setInt32(CONTROL_AT + Cmsghdr.cmsg_level, SOL_SOCKET, true)
    region.view.setInt32(CONTROL_AT + Cmsghdr.cmsg_type, SCM_RIGHTS, true)
    fds.forEach((each, i) => region.view.setInt32(CONTROL_AT + Cmsghdr.SIZE + 4 * i, each, true))
  }
  region.bytes.set(length === bytes.length ? bytes : bytes.subarray(0, length), DATA_AT)
  return result(c_sendmsg(fd, region.address, MSG_NOSIGNAL | MSG_DONTWAIT))
}

/**
 * Receives bytes and the file descriptors that came with them. Does not wait.
 *
 * @param into filled from its start
 * @param fds descriptors are appended, close-on-exec; the caller owns them
 * @returns the number of bytes, 0 at the end of the stream, or −errno; −EMSGSIZE when descriptors
 *   were lost, because more than SOCKET_MAX_FDS came or this process has no room for them: then
 *   all that came are closed
 */
export function recvmsg(fd: number, into: Uint8Array, fds: number[]): number {
  const { view, bytes, address } = prepare(Math.min(into.length, SOCKET_BUFFER_BYTES), CONTROL_BYTES)
  const n = result(c_recvmsg(fd, address, MSG_CMSG_CLOEXEC | MSG_DONTWAIT))
  if (n < 0) return n
  const came: number[] = []
  const controlEnd = view.getUint32(Msghdr.msg_controllen, true)
  for (let at = 0; at + Cmsghdr.SIZE <= controlEnd;) {
    const length = view.getUint32(CONTROL_AT + at + Cmsghdr.cmsg_len, true)
    if (length < Cmsghdr.SIZE) break
    if (view.getInt32(CONTROL_AT + at + Cmsghdr.cmsg_level, true) === SOL_SOCKET
      && view.getInt32(CONTROL_AT + at + Cmsghdr.cmsg_type, true) === SCM_RIGHTS) {
      for (let i = Cmsghdr.SIZE; i + 4 <= length; i += 4) came.push(view.getInt32(CONTROL_AT + at + i, true))
    }
    at += (length + 7) & ~7
  }
  if (view.getInt32(Msghdr.msg_flags, true) & MSG_CTRUNC) {
    came.forEach(close)
    return -errno.EMSGSIZE
  }
  fds.push(...came)
  into.set(bytes.subarray(DATA_AT, DATA_AT + n))
  return n
}

/** Looks whether something has arrived, and leaves it there. @returns 1; 0 at the end of the stream; −EAGAIN; −errno */
export function peekByte(fd: number): number {
  return result(c_recv(fd, staging().address, 1, MSG_PEEK | MSG_DONTWAIT))
}
