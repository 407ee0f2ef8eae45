/** A mount by libfuse 2, in this process: to be made in a process that does nothing else with it. */
import { readdirSync, readlinkSync } from 'node:fs'
import createDebug from 'debug'
import { errno, errorLine, PeerGoneError, UsageError } from '../errors.js'
import { isConnectionMounted } from '../mount/connection-state.js'
import { unmountPath } from '../mount/dev-fuse.js'
import { MNT_DETACH } from '../mount/flags.js'
import { abortConnection } from '../sys/abort.js'
import { dup } from '../sys/file.js'
import { close } from '../sys/io.js'
import { check } from '../sys/libc.js'
import { closeOnExec } from '../sys/mount.js'
import { threadEnded } from '../sys/thread.js'
import { getU64 } from '../wire/u64.js'
import { OPERATIONS, type Addon, type Handler, type Operation } from './addon.js'
import type { Callback } from './callback.js'
import { LibfuseThread } from './libfuse-thread.js'
import { FuseThread, FuseThreadLocals } from './structs.js'

const debug = createDebug('virtiofs:libfuse')

/** Memory of the addon for its mounts: libuv keeps a handle in it that nobody closes. */
const forever: Buffer[] = []

export class LibfuseMount {
  /** Resolves when libfuse has ended: unmounted or aborted by anyone, and every callback answered. */
  readonly ended: Promise<void>
  /** Calls so far. */
  calls = 0
  readonly #addon: Addon
  /** −1 when it has ended. */
  #fuseFd: number
  readonly #callbacks: Partial<Record<Operation, Callback>>
  /** Of threads of libfuse; their structs live as long as we do. */
  readonly #threads = new Map<Buffer, LibfuseThread>()
  readonly #mount = { allocate: (bytes: number): Buffer => this.#allocate(bytes) }
  #initialised = (): void => {}
  readonly #usable = new Promise<void>(resolve => { this.#initialised = resolve })

  private constructor(addon: Addon, mountpoint: string, options: string, callbacks: Partial<Record<Operation, Callback>>) {
    this.#addon = addon
    this.#callbacks = callbacks
    const handlers: Handler[] = []
    const implemented = new Uint32Array(OPERATIONS.length + 1)
    for (const operation of OPERATIONS) {
      const number = addon[`op_${operation}`]
      handlers[number] = this.#handler(operation)
      implemented[number] = callbacks[operation] || operation === 'init' ? 1 : 0
    }
    const thread = Buffer.alloc(addon.sizeof_fuse_thread_t)
    forever.push(thread)
    try {
      addon.fuse_native_mount(mountpoint, options, thread, this.#mount, this.#mount.allocate, handlers, implemented)
    } catch {
      // the addon does not know why; libfuse may have said so on standard error
      const advice = process.getuid!() === 0 ? '' : ': fusermount is not there (package fuse3), or refuses, as it does for a directory of others'
      throw new UsageError(`libfuse cannot mount on ${mountpoint}${advice}`, 'EPERM')
    }
    this.#fuseFd = keepFromChildren()
    const pthread = getU64(new DataView(thread.buffer, thread.byteOffset), FuseThread.thread)
    this.ended = threadEnded(pthread).then(() => {
      close(this.#fuseFd)
      this.#fuseFd = -1
    })
  }

  /**
   * Mounts, and waits until the kernel has sent INIT.
   *
   * @param callbacks what is missing is answered ENOSYS by libfuse
   * @throws UsageError, PeerGoneError
   */
  static async mount(addon: Addon, mountpoint: string, options: string, callbacks: Partial<Record<Operation, Callback>>, timeoutMs: number): Promise<LibfuseMount> {
    const mount = new LibfuseMount(addon, mountpoint, options, callbacks)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new PeerGoneError(`the kernel has not sent FUSE_INIT to libfuse within ${timeoutMs / 1000} s`, 'ETIMEDOUT')), timeoutMs)
    })
    try {
      await Promise.race([mount.#usable, late])
      return mount
    } catch (error) {
      await unmountPath(mountpoint, MNT_DETACH)
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  /** Aborts its connection, also of one that was detached; but none that has got its number since. */
  abort(connection: number, mountpoint: string): void {
    if (this.#fuseFd >= 0 && isConnectionMounted(this.#fuseFd)) abortConnection(connection, mountpoint)
  }

  /** Memory for a thread of libfuse. */
  #allocate(bytes: number): Buffer {
    if (bytes !== FuseThreadLocals.SIZE) throw new Error(`fuse_thread_locals_t has ${bytes} bytes, expected ${FuseThreadLocals.SIZE}`)
    const locals = Buffer.alloc(bytes)
    this.#threads.set(locals, new LibfuseThread(locals))
    return locals
  }

  #handler(operation: Operation): Handler {
    const callback = this.#callbacks[operation]
    return (locals, _operation, ...args) => {
      const answer = (result: number): void => this.#addon.fuse_native_signal_access(locals, result)
      if (!callback) {
        if (operation === 'init') this.#initialised()
        return answer(operation === 'init' ? 0 : -errno.ENOSYS)
      }
      this.calls++
      const failed = (error: unknown): void => {
        debug('%s: %s', operation, errorLine(error))
        answer(-errno.EIO)
      }
      try {
        const result = callback(this.#threads.get(locals)!, ...args)
        if (typeof result === 'number') answer(result)
        else result.then(answer, failed)
      } catch (error) {
        failed(error)
      }
    }
  }
}

/**
 * libfuse opens /dev/fuse so that children inherit it, and would keep a dead mount alive.
 * @returns a duplicate, for libfuse closes its own at a time of its choice
 */
function keepFromChildren(): number {
  for (const name of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${name}`) !== '/dev/fuse') continue
    } catch {
      // the descriptor of the listing itself
      continue
    }
    const fd = Number(name)
    closeOnExec(fd)
    return check(dup(fd), 'dup')
  }
  throw new UsageError('libfuse has not opened /dev/fuse', 'ENODEV')
}
