/** Limits of this process, and what a thread has used. */
import { bind, result } from './libc.js'
import { scratch, type Region } from './memory.js'
import { getU64 } from '../wire/u64.js'

const c_getrlimit = bind('int getrlimit(int, uintptr_t)')
const c_setrlimit = bind('int setrlimit(int, uintptr_t)')
const c_getrusage = bind('int getrusage(int, uintptr_t)')
const RLIMIT_NOFILE = 7
const RUSAGE_THREAD = 1
const RUSAGE_BYTES = 144
const RU_INBLOCK = 88
/** fs.nr_open of most systems; stands for "no limit" too. */
const MOST = 1_048_576

/** Raises the soft limit of open descriptors to the hard one. @returns how many may be open */
export function descriptorLimit(): number {
  const memory = scratch(16)
  if (result(c_getrlimit(RLIMIT_NOFILE, memory.address)) < 0) return 1024
  const soft = getU64(memory.view, 0)
  const hard = getU64(memory.view, 8)
  memory.view.setUint32(0, memory.view.getUint32(8, true), true)
  memory.view.setUint32(4, memory.view.getUint32(12, true), true)
  const raised = soft < hard && result(c_setrlimit(RLIMIT_NOFILE, memory.address)) === 0
  return Math.min(raised ? hard : soft, MOST)
}

let usage: Region | undefined

/** Blocks that this thread had to have read from a disk, so far. */
export function blocksRead(): number {
  usage ??= scratch(RUSAGE_BYTES)
  return result(c_getrusage(RUSAGE_THREAD, usage.address)) < 0 ? 0 : getU64(usage.view, RU_INBLOCK)
}
