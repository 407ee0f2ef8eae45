/**
 * The power management's bound on how long a CPU may take to wake: /dev/cpu_dma_latency
 * (Documentation/power/pm_qos_interface.rst). What is asked for lasts as long as the descriptor is open.
 */
import { errno, errnoName, UsageError } from '../errors.js'
import { openPath } from './file.js'
import { write } from './io.js'
import { scratch } from './memory.js'

const PATH = '/dev/cpu_dma_latency'
const O_WRONLY = 1
/** Microseconds. None: idle CPUs spin. The kernel's PM_QOS_CPU_LATENCY_DEFAULT_VALUE asks for nothing. */
const NONE = 0
const ANY = 2_000_000_000

/**
 * A descriptor that can ask, and does not yet. The caller closes it.
 * @throws UsageError where that is not permitted (it takes root), or the kernel has no such device
 */
export function openCpuLatency(): number {
  const fd = openPath(PATH, O_WRONLY)
  if (fd < 0) throw new UsageError(`option low_latency: ${PATH} cannot be opened (${errnoName(-fd)})${fd === -errno.EACCES ? ': that takes root' : ''}`, errnoName(-fd))
  return fd
}

/** One thread's requests. */
export class CpuLatency {
  readonly #fd: number
  readonly #words = scratch(8)
  #held = false

  /** @param fd of `openCpuLatency`; stays the caller's */
  constructor(fd: number) {
    this.#fd = fd
    this.#words.view.setInt32(0, NONE, true)
    this.#words.view.setInt32(4, ANY, true)
  }

  /** No CPU goes to sleep from now on. */
  hold(): void {
    if (this.#held) return
    this.#held = true
    write(this.#fd, this.#words.address, 4)
  }

  release(): void {
    if (!this.#held) return
    this.#held = false
    write(this.#fd, this.#words.address + 4, 4)
  }
}
