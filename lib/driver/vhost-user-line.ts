/** What a queue worker and a device in another process notify each other by, in the worker's epoll set. */
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLRDHUP, signalEventfd, type Epoll } from '../sys/io.js'
import type { WorkerBackend } from './worker-protocol.js'

export type VhostUserBackend = Extract<WorkerBackend, { kind: 'vhost-user' }>

/** Tokens in the epoll set: something was given back; the device has closed its socket. */
export const TOKEN_CALL = 1
export const TOKEN_SOCKET = 3

export class VhostUserLine {
  readonly #epoll: Epoll
  readonly #backend: VhostUserBackend
  readonly #hiprio: boolean
  #socketListed = true

  /** @param backend its descriptors stay the main thread's @param hiprio whether the worker owns the hiprio queue */
  constructor(epoll: Epoll, backend: VhostUserBackend, hiprio: boolean) {
    this.#epoll = epoll
    this.#backend = backend
    this.#hiprio = hiprio
    epoll.add(backend.callFd, EPOLLIN | EPOLLET, TOKEN_CALL)
    if (hiprio) epoll.add(backend.hiprioCallFd, EPOLLIN | EPOLLET, TOKEN_CALL)
    epoll.add(backend.socketFd, EPOLLRDHUP | EPOLLHUP | EPOLLERR, TOKEN_SOCKET)
    // a kick that came while the ring was disabled is lost, so each ring is kicked once now
    this.kick()
    if (hiprio) this.kickHiprio()
  }

  kick(): void {
    signalEventfd(this.#backend.kickFd)
  }

  kickHiprio(): void {
    signalEventfd(this.#backend.hiprioKickFd)
  }

  /** The device is gone: the end of its socket would be seen for ever. */
  ignoreSocket(): void {
    if (this.#socketListed) this.#epoll.remove(this.#backend.socketFd)
    this.#socketListed = false
  }

  /** The rings belong to another backend from now on, which is to look at them whatever their event words say. */
  moveTo(socketFd: number): void {
    this.ignoreSocket()
    this.#epoll.add(this.#backend.socketFd = socketFd, EPOLLRDHUP | EPOLLHUP | EPOLLERR, TOKEN_SOCKET)
    this.#socketListed = true
    this.kick()
    if (this.#hiprio) this.kickHiprio()
  }

  /** Nothing of it is listened to any more, before its descriptors are closed. */
  leave(): void {
    this.ignoreSocket()
    if (this.#hiprio) this.#epoll.remove(this.#backend.hiprioCallFd)
    this.#epoll.remove(this.#backend.callFd)
  }
}
