/**
 * The state of a device as bytes: out of one backend process, into another (DEVICE_STATE). With
 * the rings stopped before and set up again after, this replaces a backend under a live mount.
 */
import { performance } from 'node:perf_hooks'
import { errno, PeerGoneError, SyscallError } from '../errors.js'
import { close, pollAsync, POLLIN, POLLOUT, read, write } from '../sys/io.js'
import { scratch, type Region } from '../sys/memory.js'
import { socketpair } from '../sys/socket.js'
import type { VhostUserFrontend } from './frontend.js'

/** At most PIPE_BUF: a write of this many bytes to a pipe that is ready does not block. */
const CHUNK_BYTES = 4096

let chunk: Region | undefined

export interface TransferOptions {
  /** Deadline for the whole transfer. */
  timeoutMs?: number
}

const DEFAULT_TRANSFER_MS = 30_000

/**
 * Reads the state of a device whose rings are all stopped.
 * @throws ProtocolError when the backend cannot save it; PeerGoneError, UsageError, SyscallError
 */
export async function saveDeviceState(
  frontend: VhostUserFrontend, { timeoutMs = DEFAULT_TRANSFER_MS }: TransferOptions = {},
): Promise<Buffer> {
  const deadline = performance.now() + timeoutMs
  const fd = await start(frontend, 'save')
  const parts: Buffer[] = []
  try {
    chunk ??= scratch(CHUNK_BYTES)
    for (;;) {
      await ready(frontend, fd, POLLIN, deadline)
      const n = read(fd, chunk.address, CHUNK_BYTES)
      if (n === 0) break
      if (n > 0) parts.push(Buffer.from(chunk.bytes.subarray(0, n)))
      else if (n !== -errno.EAGAIN && n !== -errno.EINTR) throw new SyscallError('read', -n, 'state of the device')
    }
  } finally {
    close(fd)
  }
  await frontend.checkDeviceState(Math.max(1, Math.ceil(deadline - performance.now())))
  return Buffer.concat(parts)
}

/**
 * Writes a saved state into a device that has not been used yet; its owner and memory are set.
 * @throws ProtocolError when the backend does not accept it; PeerGoneError, UsageError, SyscallError
 */
export async function loadDeviceState(
  frontend: VhostUserFrontend, state: Uint8Array, { timeoutMs = DEFAULT_TRANSFER_MS }: TransferOptions = {},
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  const fd = await start(frontend, 'load')
  try {
    chunk ??= scratch(CHUNK_BYTES)
    for (let at = 0; at < state.length;) {
      await ready(frontend, fd, POLLOUT, deadline)
      const part = state.subarray(at, at + CHUNK_BYTES)
      chunk.bytes.set(part)
      const n = write(fd, chunk.address, part.length)
      if (n > 0) at += n
      // it stopped reading: the check below says whether it had enough
      else if (n === -errno.EPIPE || n === -errno.ECONNRESET) break
      else if (n !== -errno.EAGAIN && n !== -errno.EINTR) throw new SyscallError('write', -n, 'state of the device')
    }
  } finally {
    close(fd)
  }
  await frontend.checkDeviceState(Math.max(1, Math.ceil(deadline - performance.now())))
}

/** @returns the descriptor to read or write, owned by the caller: ours, or one that the backend prefers */
async function start(frontend: VhostUserFrontend, direction: 'save' | 'load'): Promise<number> {
  // virtiofsd reads and writes its end without polling
  const [ours, theirs] = socketpair('theirs blocking')
  let instead: number | null
  try {
    instead = await frontend.setDeviceStateFd(direction, theirs)
  } catch (error) {
    close(ours)
    throw error
  } finally {
    close(theirs)
  }
  if (instead === null) return ours
  close(ours)
  return instead
}

async function ready(frontend: VhostUserFrontend, fd: number, events: number, deadline: number): Promise<void> {
  const leftMs = Math.ceil(deadline - performance.now())
  const n = leftMs > 0 ? await pollAsync(fd, events, leftMs) : 0
  if (n === 0) throw new PeerGoneError(`${frontend.connection.peer}: the transfer of the device's state did not end in time`, 'ETIMEDOUT')
  if (n < 0) throw new SyscallError('poll', -n)
}
