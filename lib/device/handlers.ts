/**
 * What the emulated device asks of a file system behind it.
 *
 * The device takes a request off a virtqueue, describes it in a `DeviceRequest` (one object per
 * worker, reused for every request) and calls `handle`. The handlers read the arguments and write
 * the reply in place; payload of READ and WRITE is only described, by iovecs for preadv/pwritev.
 */

export interface DeviceRequest {
  /** fuse_in_header, decoded. Node ids of the handlers are theirs to choose below 2^53. */
  opcode: number
  /** fuse_in_header.len, checked against the descriptors. */
  lengthBytes: number
  uniqueLow: number
  uniqueHigh: number
  nodeid: number
  uid: number
  gid: number
  pid: number
  /** False on the thread of a queue, which nothing may hold up: see `MAY_BLOCK`. */
  mayBlock: boolean
  /** Size of the extensions at the end of the arguments, in bytes. */
  extensionBytes: number

  /**
   * The arguments behind the header, contiguous: `argsBytes` bytes at `args[argsAt]`, which is
   * memory at `argsAddress`. For WRITE only fuse_write_in; for all others everything, names and
   * data included. Valid until `handle` returns.
   */
  args: DataView
  argsAt: number
  argsAddress: number
  argsBytes: number

  /** WRITE: the data as an array of struct iovec, and its total length. */
  payloadIov: number
  payloadIovCount: number
  payloadBytes: number

  /**
   * Room for the reply behind fuse_out_header, contiguous: `replyBytes` bytes at
   * `reply[replyAt]`, memory at `replyAddress`. For READ it is not to be used: there `replyIov`
   * describes the room, `replyBytes` bytes in all.
   */
  reply: DataView
  replyAt: number
  replyAddress: number
  replyBytes: number
  replyIov: number
  replyIovCount: number
}

/** `handle` returns this when there is no reply (FORGET, BATCH_FORGET, INTERRUPT). */
export const NO_REPLY = -0x8000_0000

/**
 * `handle` returns this, having done nothing, when the request can take long and `mayBlock` is
 * false: it is handled again, on a thread of the pool, where it may.
 */
export const MAY_BLOCK = -0x7fff_ffff

/** `handle` returns this for a request that is never to be answered, in tests. */
export const DROPPED = -0x7fff_fffe

/** A file system on a thread with an event loop, where any number of requests is at work at once. */
export interface LoopHandlers {
  /**
   * Executes one request. The request stays as it is until the answer is there.
   *
   * @returns as `Handlers.handle`, but for MAY_BLOCK; a promise of it never rejects
   */
  handle(request: DeviceRequest): number | Promise<number>
  /** The request with this unique, if it is still at work, is not waited for any more. */
  interrupted?(uniqueLow: number, uniqueHigh: number): void
  /** As of Handlers. */
  close(): void | Promise<void>
}

/** What surrounds the handlers of a thread. */
export interface DeviceHost {
  /** /dev/fuse of a mount by this process, or −1. The caller's. For what has no place on the rings: backing files (`direct`), and attributes that changed with a request. */
  windowFd: number
}

/**
 * What the module of some handlers exports: makes one instance, for the thread that calls it.
 * `data` is cloned from the main thread.
 */
export interface HandlersModule<H = Handlers> {
  createHandlers(data: unknown, host: DeviceHost): H | Promise<H>
}

/**
 * A file system, one instance per device worker thread; what they share is theirs to arrange.
 */
export interface Handlers {
  /**
   * Executes one request. Must not throw for anything a request can contain.
   *
   * @returns bytes of reply behind fuse_out_header (0 or more), −errno, NO_REPLY, MAY_BLOCK or DROPPED
   */
  handle(request: DeviceRequest): number
  /**
   * There is a pool. From now on requests may leave what takes long and nobody waits for, such as
   * giving back the blocks of a large file whose last descriptor was closed.
   */
  mayLeave?(): void
  /** Whether something was left that nobody was asked to do: who asks has to have `finish` called, by any instance. */
  claimLeft?(): boolean
  /** Does what was left, on a thread that may wait. */
  finish?(): void
  /** The worker ends. Called once; after DESTROY when there was one. */
  close(): void
}
