/** What a queue worker listens to for a local device, in its epoll set, and whether that is sound. */
import { EPOLLET, EPOLLIN, EPOLLOUT, type Epoll } from '../sys/io.js'
import type { LocalDevice } from './local-device.js'

/** In the epoll set, beside those of VhostUserLine: the stream has something, or room. */
const TOKEN_STREAM = 4

export class LocalLine {
  readonly #epoll: Epoll
  readonly #device: LocalDevice
  readonly #broke: (reason: string) => void
  #broken = false
  /** Listens to room on its stream only while that is wanted: a socket tells of all that its reader takes. */
  #waitsForRoom = false

  /** @param device closed by `leave` @param broke told once, at most, why nothing can come any more */
  constructor(epoll: Epoll, device: LocalDevice, broke: (reason: string) => void) {
    this.#epoll = epoll
    this.#device = device
    this.#broke = broke
    // read until there is no more
    epoll.add(device.inFd, EPOLLIN | EPOLLET, TOKEN_STREAM)
  }

  /** A round of the device. @returns how much there was */
  pass(): number {
    return this.#device.pass()
  }

  /** To be called when what the last round has brought is done. */
  checkSound(): void {
    if (this.#device.broken === '' || this.#broken) return
    this.#broken = true
    this.#broke(this.#device.broken)
  }

  /** Before sleeping. @returns false when the device is to have another round instead */
  fallAsleep(): boolean {
    const device = this.#device
    if (!this.#broken && device.hasAvailable()) return false
    if (device.blocked === this.#waitsForRoom) return true
    this.#waitsForRoom = device.blocked
    if (this.#waitsForRoom) this.#epoll.add(device.outFd, EPOLLOUT, TOKEN_STREAM)
    else this.#epoll.remove(device.outFd)
    return true
  }

  /** It is served no more, and nothing of it listened to, before its descriptors are closed. */
  leave(): void {
    this.#epoll.remove(this.#device.inFd)
    if (this.#waitsForRoom) this.#epoll.remove(this.#device.outFd)
    this.#device.close()
  }
}
