/** Exchanging hellos, on descriptors that do not block. Nothing is read beyond the other end's hello. */
import { errno, PeerGoneError, ProtocolError, SyscallError } from '../errors.js'
import { pollAsync, POLLIN, POLLOUT, read, write } from '../sys/io.js'
import { mapAnonymous, unmap, viewRegion, type Region } from '../sys/memory.js'
import { decodeHello, decodeText, encodeHello, MAGIC_BYTES, magicBytes, printable, RelayHello, type Hello } from './hello.js'

const BUFFER_BYTES = 1 << 17
/** How long a stranger's greeting is listened to, to quote it, in milliseconds. */
const GREETING_MS = 100
const QUOTED = 80

/** The other end's stream ended before its hello was complete. */
export class StreamEndedError extends PeerGoneError {}

/** Sends a hello. @throws SyscallError; StreamEndedError when nobody reads */
export async function sendHello(fd: number, hello: Hello, deadline: number, signal?: AbortSignal): Promise<void> {
  const bytes = encodeHello(hello)
  await withBuffer(async buffer => {
    buffer.bytes.set(bytes)
    for (let done = 0; done < bytes.length;) {
      const count = write(fd, buffer.address + done, bytes.length - done)
      if (count > 0) done += count
      else if (count === -errno.EAGAIN) await until(fd, POLLOUT, deadline, signal)
      else if (count === -errno.EPIPE || count === -errno.ECONNRESET) throw new StreamEndedError('the other end of the stream is closed')
      else throw new SyscallError('write', -count, 'a hello')
    }
  })
}

/**
 * Receives the other end's hello.
 *
 * @param end whose it is: `near` or `far`
 * @param deadline by the clock of `performance`
 * @param signal ends the waiting, as the deadline does
 * @throws ProtocolError for what is none, quoting it; StreamEndedError; PeerGoneError ETIMEDOUT
 */
export async function receiveHello(fd: number, end: 'near' | 'far', deadline: number, signal?: AbortSignal): Promise<{ limits: Hello['limits'], text: Record<string, unknown> }> {
  return await withBuffer(async buffer => {
    let have = 0
    const get = async (total: number): Promise<void> => {
      while (have < total) {
        const count = await receive(fd, buffer.address + have, total - have, deadline, signal)
        if (count === 0) throw new StreamEndedError(have === 0 ? `the stream ended before the ${end} end said anything` : `the stream ended within the hello of the ${end} end`)
        have += count
        if (magicBytes(buffer.bytes.subarray(0, Math.min(have, MAGIC_BYTES))) < Math.min(have, MAGIC_BYTES)) throw await stranger(fd, buffer, have, end)
      }
    }
    await get(RelayHello.SIZE)
    const { limits, textBytes } = decodeHello(buffer.bytes.slice(0, RelayHello.SIZE), end)
    await get(RelayHello.SIZE + textBytes)
    return { limits, text: decodeText(buffer.bytes.slice(RelayHello.SIZE, have), end) }
  })
}

/** A login banner, a prompt, an error message: whatever it is, its beginning says most. */
async function stranger(fd: number, buffer: Region, have: number, end: string): Promise<ProtocolError> {
  const deadline = performance.now() + GREETING_MS
  while (have < QUOTED * 2) {
    const count = await receive(fd, buffer.address + have, QUOTED * 2 - have, deadline).catch(() => 0)
    if (count === 0) break
    have += count
  }
  const text = printable(Buffer.from(buffer.bytes.slice(0, have)).toString('latin1'))
  return new ProtocolError(`hello of the ${end} end`, 'magic', JSON.stringify(text.length > QUOTED ? `${text.slice(0, QUOTED)}…` : text), 'that of virtiofs-bridge')
}

/** @returns bytes, 0 at the end of the stream */
async function receive(fd: number, address: number, lengthBytes: number, deadline: number, signal?: AbortSignal): Promise<number> {
  for (;;) {
    const count = read(fd, address, lengthBytes)
    if (count >= 0) return count
    if (count === -errno.EAGAIN) await until(fd, POLLIN, deadline, signal)
    else if (count === -errno.ECONNRESET) return 0
    else if (count !== -errno.EINTR) throw new SyscallError('read', -count, 'a hello')
  }
}

async function until(fd: number, events: number, deadline: number, signal?: AbortSignal): Promise<void> {
  // in slices: a thread of libuv's pool that waits for long would hold up the end of the process
  while (performance.now() < deadline && !signal?.aborted) if (await pollAsync(fd, events, Math.max(1, Math.min(100, deadline - performance.now()))) !== 0) return
  throw new PeerGoneError('no hello came in time', 'ETIMEDOUT')
}

async function withBuffer<T>(use: (buffer: Region) => Promise<T>): Promise<T> {
  const address = mapAnonymous(BUFFER_BYTES)
  try {
    return await use(viewRegion(address, BUFFER_BYTES))
  } finally {
    unmap(address, BUFFER_BYTES)
  }
}
