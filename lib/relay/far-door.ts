/**
 * Where a far end is asked to end by the far end of a later link of the same session: an abstract
 * Unix socket, which goes with the process. Its name can be seen by everybody on the host; who knocks
 * shows the session's token, which only the ends of the session know.
 */
import { randomBytes } from 'node:crypto'
import { createServer, Socket, type Server } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { PeerGoneError } from '../errors.js'
import { connectAbstract, listenAbstract } from '../sys/socket.js'
import { hasEnded, type FarIdentity } from './far-identity.js'

/** Between two looks whether a process has ended, in milliseconds. */
const LOOK_MS = 10
const TOKEN_BYTES = 32

export class FarDoor {
  readonly name = `virtiofs-bridge-relay-${randomBytes(16).toString('hex')}`
  readonly #server: Server

  /**
   * @param token of the session
   * @param told when somebody who has it wants this end to end
   * @throws SyscallError
   */
  constructor(token: string, told: () => void) {
    const fd = listenAbstract(this.name)
    this.#server = createServer(socket => {
      let said = ''
      socket.setEncoding('latin1').on('data', (text: string) => {
        said += text
        if (said === token) told()
        else if (said.length >= TOKEN_BYTES) socket.destroy()
      }).on('error', () => {}).unref()
    })
    this.#server.listen({ fd }).unref()
  }

  close(): void {
    this.#server.close()
  }
}

/**
 * Waits until a far end of an earlier link has ended, having asked it to.
 *
 * @param token of their session
 * @throws PeerGoneError when it has not in time: it works on something that it had received
 */
export async function endPredecessor(before: FarIdentity, token: string, timeoutMs: number): Promise<void> {
  if (hasEnded(before)) return
  const endMs = performance.now() + timeoutMs
  const socket = knock(before.door, token)
  try {
    while (!hasEnded(before)) {
      if (performance.now() > endMs) throw new PeerGoneError(`the far end of the link before (process ${before.pid}) still works on what it has received`)
      await sleep(LOOK_MS)
    }
  } finally {
    socket?.destroy()
  }
}

/** @returns undefined when nobody is there: it is ending, or in another network namespace */
function knock(door: string, token: string): Socket | undefined {
  const fd = connectAbstract(door)
  if (fd < 0) return undefined
  const socket = new Socket({ fd, readable: true, writable: true })
  socket.on('error', () => {}).resume().write(token, 'latin1')
  return socket
}
