/** The calling thread, as the kernel sees it. */
import { bind, result } from './libc.js'
import { scratch } from './memory.js'

const c_gettid = bind('int gettid()')

const c_prctl = bind('int prctl(int, uintptr_t)')
const PR_SET_NAME = 15
const NAME_BYTES = 15

/** Names the calling thread, for `top -H` and /proc/PID/task/TID/comm. The kernel keeps 15 bytes. */
export function nameThread(name: string): void {
  const bytes = scratch(NAME_BYTES + 1)
  for (let i = 0; i < Math.min(name.length, NAME_BYTES); i++) bytes.bytes[i] = name.charCodeAt(i)
  c_prctl(PR_SET_NAME, bytes.address)
}

/** Thread id: what FAN_REPORT_TID reports. */
export function threadId(): number {
  return result(c_gettid())
}
