/** The calling thread, as the kernel sees it. */
import { bind, bindAsync, result } from './libc.js'
import { scratch } from './memory.js'

const c_gettid = bind('int gettid()')
const c_pthread_join = bindAsync('int pthread_join(uintptr_t, uintptr_t)')

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

/** Resolves when another thread has ended. It takes a thread of the pool until then, and may be asked for once. @param thread a pthread_t */
export function threadEnded(thread: number): Promise<number> {
  return c_pthread_join(thread, 0)
}
