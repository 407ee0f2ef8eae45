/**
 * Unix sockets: how they are made, and found by a path or an abstract name. What is sent over them is
 * in socket-message.ts.
 *
 * Layout: `struct sockaddr_un` of unix(7), the same on x86-64 and arm64. Addresses are staged in one
 * scratch buffer per thread.
 */
import { closeSync, constants, fchmodSync, openSync, statSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { errno, PeerGoneError, SyscallError, UsageError } from '../errors.js'
import { close, pollAsync, POLLIN, write } from './io.js'
import { bind, check, result } from './libc.js'
import { scratch, type Region } from './memory.js'

const c_socket = bind('int socket(int, int, int)')
const c_socketpair = bind('int socketpair(int, int, int, uintptr_t)')
const c_connect = bind('int connect(int, uintptr_t, uint32_t)')
const c_bind = bind('int bind(int, uintptr_t, uint32_t)')
const c_listen = bind('int listen(int, int)')
const c_accept4 = bind('int accept4(int, uintptr_t, uintptr_t, int)')
const c_fcntl = bind('int fcntl(int, int, int)')
const c_shutdown = bind('int shutdown(int, int)')

const AF_UNIX = 1
const SOCK_STREAM = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0x80000
const SOCK_NONBLOCK = 0x800
const SHUT_RDWR = 2
const F_SETFL = 4
const O_PATH = 0x200000

/** sun_path holds 108 bytes; one is kept for the terminator that unix(7) asks for. */
const SUN_PATH_BYTES = 108
/** A family, a path or a name, and room to spare. */
const ADDRESS_BYTES = 2 + SUN_PATH_BYTES + 2
/** The longest datagram. */
const DATAGRAM_BYTES = 8192

let buffer: Region | undefined
let datagram: Region | undefined

function staging(): Region {
  return buffer ??= scratch(ADDRESS_BYTES)
}

/**
 * Two connected sockets, close-on-exec and non-blocking; the caller owns both.
 * @param mode `theirs blocking`: the second one blocks, for a peer that reads without polling
 * @throws SyscallError
 */
export function socketpair(mode?: 'theirs blocking'): [ours: number, theirs: number] {
  const { view, address } = staging()
  check(result(c_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, address)), 'socketpair')
  const [ours, theirs] = [view.getInt32(0, true), view.getInt32(4, true)]
  // it is a flag of the open file, so it goes with the descriptor to another process
  if (mode === 'theirs blocking') check(result(c_fcntl(theirs, F_SETFL, 0)), 'fcntl', 'F_SETFL')
  return [ours, theirs]
}

/** Writes a sockaddr_un into the staging buffer. @returns its length, or −ENAMETOOLONG */
function sockaddr(path: string): number {
  const { view, bytes } = staging()
  const name = Buffer.from(path)
  if (name.length >= SUN_PATH_BYTES) return -errno.ENAMETOOLONG
  if (name.includes(0) || name.length === 0) throw new UsageError(`"${path.replaceAll('\0', '\\0')}" is not a path of a socket`)
  view.setUint16(0, AF_UNIX, true)
  bytes.set(name, 2)
  bytes[2 + name.length] = 0
  return 2 + name.length + 1
}

function streamSocket(flags: number): number {
  return check(result(c_socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)), 'socket')
}

function tryConnect(fd: number, path: string): number {
  const length = sockaddr(path)
  return length < 0 ? length : result(c_connect(fd, staging().address, length))
}

/** Sends one datagram to a socket and is done. @returns how many bytes were sent, or −errno: nobody there, or its queue is full */
export function sendDatagram(path: string, text: string): number {
  const fd = result(c_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))
  if (fd < 0) return fd
  let n = tryConnect(fd, path)
  if (n === 0) {
    const data = Buffer.from(text).subarray(0, DATAGRAM_BYTES)
    const { bytes, address } = datagram ??= scratch(DATAGRAM_BYTES)
    bytes.set(data)
    n = write(fd, address, data.length)
  }
  close(fd)
  return n
}

function isSocket(path: string): boolean {
  try {
    return statSync(path).isSocket()
  } catch {
    return true
  }
}

/**
 * Connects to a listening socket. A path longer than `sun_path` is reached through an O_PATH
 * descriptor of the socket itself.
 *
 * @returns the connected socket, close-on-exec and non-blocking; the caller owns it
 * @throws PeerGoneError ENOENT: no such socket; ECONNREFUSED: nobody listens, or its queue of
 *   connections is full
 * @throws UsageError when the path names something that is not a stream socket
 * @throws SyscallError for every other failure
 */
export function connectUnix(path: string): number {
  const fd = streamSocket(SOCK_NONBLOCK)
  let n: number
  try {
    n = tryConnect(fd, path)
    if (n === -errno.ENAMETOOLONG) n = connectLong(fd, path)
    if (n === 0) return fd
    // the kernel says ECONNREFUSED for a path that is no socket, too
    if (n === -errno.ECONNREFUSED && !isSocket(path)) throw new UsageError(`${path} is not a socket`, 'ENOTSOCK')
  } catch (error) {
    close(fd)
    throw error
  }
  close(fd)
  switch (-n) {
    case errno.ENOENT: throw new PeerGoneError(`${path}: no such socket`, 'ENOENT')
    case errno.ECONNREFUSED: throw new PeerGoneError(`${path}: nobody is listening on this socket`, 'ECONNREFUSED')
    case errno.EAGAIN: throw new PeerGoneError(`${path}: the queue of connections is full; does it serve another client?`, 'ECONNREFUSED')
    case errno.EPROTOTYPE: throw new UsageError(`${path} is not a stream socket`, 'EPROTOTYPE')
    default: throw new SyscallError('connect', -n, path)
  }
}

function connectLong(fd: number, path: string): number {
  let node: number
  try {
    node = openSync(path, O_PATH)
  } catch (error) {
    return (error as NodeJS.ErrnoException).errno ?? -errno.EINVAL
  }
  try {
    return tryConnect(fd, `/proc/self/fd/${node}`)
  } finally {
    closeSync(node)
  }
}

/**
 * Makes a listening socket, to be handed to a backend as its `--fd`. It is a blocking one, as the
 * backend's accept expects. The mode is set before bind, so that the socket is never open to
 * others in between.
 *
 * @param path must not exist; the caller removes it in the end
 * @returns the listening socket, close-on-exec; the caller owns it
 * @throws UsageError when the file name does not fit `sun_path`; SyscallError
 */
export function listenUnix(path: string, mode = 0o600): number {
  const fd = streamSocket(0)
  let directory = -1
  try {
    fchmodSync(fd, mode)
    let length = sockaddr(path)
    if (length === -errno.ENAMETOOLONG) {
      directory = openSync(dirname(path), O_PATH | constants.O_DIRECTORY)
      length = sockaddr(`/proc/self/fd/${directory}/${basename(path)}`)
      if (length < 0) throw new UsageError(`${basename(path)}: too long for the name of a socket`)
    }
    check(result(c_bind(fd, staging().address, length)), 'bind', path)
    check(result(c_listen(fd, 1)), 'listen', path)
    return fd
  } catch (error) {
    close(fd)
    throw error
  } finally {
    if (directory >= 0) closeSync(directory)
  }
}

/** Writes a sockaddr_un of an abstract name, which has no file, into the staging buffer. @returns its length */
function abstractAddress(name: string): number {
  const { view, bytes } = staging()
  const text = Buffer.from(name)
  view.setUint16(0, AF_UNIX, true)
  bytes[2] = 0
  bytes.set(text, 3)
  return 3 + text.length
}

/**
 * Makes a listening socket with an abstract name (unix(7)), which goes with the socket.
 * @param name at most 100 characters of ASCII
 * @returns the listening socket, close-on-exec and non-blocking; the caller owns it
 * @throws SyscallError
 */
export function listenAbstract(name: string): number {
  const fd = streamSocket(SOCK_NONBLOCK)
  try {
    check(result(c_bind(fd, staging().address, abstractAddress(name))), 'bind', `@${name}`)
    check(result(c_listen(fd, 4)), 'listen', `@${name}`)
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

/** Connects to one. @returns the socket, close-on-exec and non-blocking, which the caller owns, or −errno */
export function connectAbstract(name: string): number {
  const fd = streamSocket(SOCK_NONBLOCK)
  const error = result(c_connect(fd, staging().address, abstractAddress(name)))
  if (error === 0) return fd
  close(fd)
  return error
}

/**
 * Waits for a client of a listening socket.
 * @returns the connected socket, close-on-exec and non-blocking, −ETIMEDOUT or −errno
 */
export async function acceptUnix(listenFd: number, timeoutMs: number): Promise<number> {
  const ready = await pollAsync(listenFd, POLLIN, timeoutMs)
  if (ready <= 0) return ready === 0 ? -errno.ETIMEDOUT : ready
  return result(c_accept4(listenFd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK))
}

/** Ends both directions: wakes whoever waits on the socket, here and at the peer. */
export function shutdown(fd: number): number {
  return result(c_shutdown(fd, SHUT_RDWR))
}
