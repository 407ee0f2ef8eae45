/** Where idle CPUs are kept awake while polls find work, although nobody asked for it. */
import { accessSync, constants, readFileSync } from 'node:fs'

const DEVICE = '/dev/cpu_dma_latency'
/** What puts CPUs to sleep, and heeds the device: `none` where they just halt. */
const DRIVER = '/sys/devices/system/cpu/cpuidle/current_driver'
/** All idle CPUs of the machine spin meanwhile, so they must be few. */
const MOST_CPUS = 4

/**
 * In a virtual machine, where waking a CPU means leaving the guest twice and costs several small
 * requests (native-notes/performance.md); the guest's own remedy, haltpoll, keeps CPUs awake in the
 * same way. On real hardware it gains little.
 */
export function keepsCpusAwake(machine = thisMachine()): boolean {
  if (machine.cpus > MOST_CPUS || !machine.flags.includes('hypervisor')) return false
  try {
    accessSync(DEVICE, constants.W_OK)
    return readFileSync(DRIVER, 'latin1').trim() !== 'none'
  } catch {
    return false
  }
}

/** Flags are of the first CPU, where the architecture has such a line. */
function thisMachine(): { cpus: number, flags: string[] } {
  const text = readFileSync('/proc/cpuinfo', 'latin1')
  return { cpus: text.match(/^processor\s*:/gm)?.length ?? 0, flags: /^flags\s*: (.*)$/m.exec(text)?.[1]!.split(' ') ?? [] }
}
