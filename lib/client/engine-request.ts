/** A request of a client on its way through the engine, and the lists that it waits in. */
import type { Region } from '../sys/memory.js'

/** Something that a request is about and that must outlive it: a node, an open file. */
export interface Reference {
  hold(): void
  drop(): void
}

/** Where a good reply lies. One object per engine, valid until `decode` returns. */
export interface ReplyPlace {
  readonly region: Region
  /** Byte of the region where the fixed part starts, behind fuse_out_header. */
  at: number
  /** Bytes of the fixed part, shorter than declared only for INIT. */
  fixedBytes: number
  /** Byte where the payload starts, and its length. */
  payloadAt: number
  payloadBytes: number
}

/** Takes from a good reply what the caller wants. Must not throw, nor keep a view of the memory. */
export type Decode<T> = (reply: ReplyPlace, request: EngineRequest) => T

export const enum RequestState {
  /** Over the bound of outstanding requests, or INIT has not been answered. */
  WAITING,
  /** Admitted, and waits for room in ring and buffers. */
  PENDING,
  /** The device has it: the kernel calls that processing. */
  PROCESSING,
  ENDED,
}

export class EngineRequest {
  state = RequestState.WAITING
  uniqueLow = 0
  uniqueHigh = 0
  slot = -1
  /** fuse_in_header and the arguments: in the engine's staging memory, or a copy while it waits. */
  message: Uint8Array
  /** Nobody waits for the answer: what it gives out is given back, its references are dropped with it. */
  background = false
  /** Its caller was interrupted after the device got it. */
  interrupted = false
  next: EngineRequest | undefined
  previous: EngineRequest | undefined

  /**
   * @param payload of WRITE or SETXATTR, behind the message; not changed until it was copied (`copied`)
   * @param target where the payload of a READ goes
   * @param first node that it is about
   * @param second another node, or the open file
   * @param end is told the result: what `decode` returned, or −errno
   */
  constructor(
    readonly opcode: number, message: Uint8Array, readonly payload: Uint8Array | undefined, readonly target: Uint8Array | undefined,
    readonly first: Reference | undefined, readonly second: Reference | undefined,
    readonly decode: Decode<unknown>, readonly end: (result: unknown) => void, readonly copied: (() => void) | undefined,
  ) {
    this.message = message
  }

  /** The references of a request whose caller lets go of them (background_request in fs/fuse/dev.c). */
  toBackground(): void {
    this.background = true
    this.first?.hold()
    this.second?.hold()
  }

  releaseReferences(): void {
    this.first?.drop()
    this.second?.drop()
  }
}

/** Requests in the order they came; any of them may leave. */
export class RequestList {
  length = 0
  first: EngineRequest | undefined
  #last: EngineRequest | undefined

  push(request: EngineRequest): void {
    request.previous = this.#last
    request.next = undefined
    if (this.#last) this.#last.next = request
    else this.first = request
    this.#last = request
    this.length++
  }

  remove(request: EngineRequest): void {
    if (request.previous) request.previous.next = request.next
    else this.first = request.next
    if (request.next) request.next.previous = request.previous
    else this.#last = request.previous
    request.previous = request.next = undefined
    this.length--
  }

  /** @returns undefined when there is none */
  shift(): EngineRequest | undefined {
    const { first } = this
    if (first) this.remove(first)
    return first
  }
}
