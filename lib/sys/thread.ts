/** The calling thread, as the kernel sees it. */
import { bind, result } from './libc.js'

const c_gettid = bind('int gettid()')

/** Thread id: what FAN_REPORT_TID reports. */
export function threadId(): number {
  return result(c_gettid())
}
