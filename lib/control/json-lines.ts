/** JSON objects, one a line, on a socket. */
import type { Socket } from 'node:net'
import { ProtocolError } from '../errors.js'
import { MAX_LINE } from './protocol.js'

/**
 * Calls `taken` for each object that comes.
 *
 * @param failed when what comes is not JSON, or a line is too long
 */
export function readJsonLines(socket: Socket, taken: (value: unknown) => void, failed: (error: Error) => void): void {
  let rest = ''
  socket.setEncoding('utf8')
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    try {
      for (const line of lines) taken(JSON.parse(line))
      if (rest.length > MAX_LINE) throw new ProtocolError('control socket', 'line', `${rest.length} characters`, `at most ${MAX_LINE}`)
    } catch (error) {
      rest = ''
      failed(error as Error)
    }
  })
}

export function writeJsonLine(socket: Socket, value: object): void {
  socket.write(JSON.stringify(value) + '\n')
}
