/** A unix datagram socket that collects what is sent to it: the place of syslog or of the journal in a test. */
import { rmSync } from 'node:fs'
import { close, poll, POLLIN, read } from '../../lib/sys/io.js'
import { bind, check, result } from '../../lib/sys/libc.js'
import { scratch } from '../../lib/sys/memory.js'

const c_socket = bind('int socket(int, int, int)')
const c_bind = bind('int bind(int, uintptr_t, uint32_t)')
const AF_UNIX = 1
const SOCK_DGRAM = 2
const ROOM = 8192

export class DatagramReceiver {
  readonly #fd: number
  readonly #path: string
  readonly #memory = scratch(ROOM)

  constructor(path: string) {
    this.#path = path
    this.#fd = check(result(c_socket(AF_UNIX, SOCK_DGRAM, 0)), 'socket')
    const { view, bytes, address } = this.#memory
    view.setUint16(0, AF_UNIX, true)
    const name = Buffer.from(path + '\0')
    bytes.set(name, 2)
    check(result(c_bind(this.#fd, address, 2 + name.length)), 'bind', path)
  }

  /** What has come, one element a datagram. */
  received(): string[] {
    const texts: string[] = []
    while (poll(this.#fd, POLLIN, 0) > 0) {
      const length = read(this.#fd, this.#memory.address, ROOM)
      if (length <= 0) break
      texts.push(Buffer.from(this.#memory.bytes.slice(0, length)).toString())
    }
    return texts
  }

  close(): void {
    close(this.#fd)
    rmSync(this.#path, { force: true })
  }
}
