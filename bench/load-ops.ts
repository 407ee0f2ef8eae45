/** Rows of one small operation each: latency, and the same operations on 8 threads. */
import { join } from 'node:path'
import { BIG_BYTES, STAT_NAMES, statName } from './fixture-names.js'
import { forgetNames } from './load-caches.js'
import * as sys from './load-sys.js'
import { timed, type Operation, type Task } from './load-task.js'
import type { Measure } from './rows.js'

const BLOCK = 4096

function statfs(task: Task): Operation {
  const path = sys.cString(task.root)
  const buffer = sys.alloc(4096)
  return () => {
    if (sys.statfs(path, buffer) < 0) sys.fail('statfs', task.root)
  }
}

/** A new name each time, and none that the kernel knows from an earlier repetition: always a LOOKUP. */
function stat(task: Task): Operation {
  forgetNames(task)
  const paths = sys.cStrings(Array.from({ length: STAT_NAMES }, (_, i) => join(task.root, statName(i))))
  const buffer = sys.alloc(4096)
  return i => {
    if (sys.stat(paths[i]!, buffer) < 0) sys.fail('stat', statName(i))
  }
}

function open(task: Task): Operation {
  const path = sys.cString(join(task.root, 'small'))
  return () => {
    const fd = sys.open(path, sys.O_RDONLY, 0)
    if (fd < 0) sys.fail('open', 'small')
    sys.close(fd)
  }
}

function create(task: Task): Operation {
  const path = sys.cString(join(task.work, 'created'))
  const buffer = sys.alloc(BLOCK)
  return () => {
    const fd = sys.open(path, sys.O_WRONLY | sys.O_CREAT | sys.O_EXCL, 0o644)
    if (fd < 0) sys.fail('open', 'O_CREAT')
    if (sys.write(fd, buffer, BLOCK) !== BLOCK) sys.fail('write', '4096 bytes')
    sys.close(fd)
    if (sys.unlink(path) < 0) sys.fail('unlink', 'created')
  }
}

function pread(task: Task): Operation {
  const fd = sys.openPath(join(task.root, 'big'), sys.O_RDONLY | sys.O_DIRECT)
  const buffer = sys.alloc(BLOCK)
  const blocks = BIG_BYTES / BLOCK
  let block = process.pid % blocks
  return () => {
    // a full-period walk that no read-ahead can follow
    block = (block * 5 + 12345) % blocks
    if (sys.pread(fd, buffer, BLOCK, block * BLOCK) !== BLOCK) sys.fail('pread', `block ${block}`)
  }
}

/** Makes the operation of a row; also run on each of the 8 threads. */
export const operations: Record<string, (task: Task) => Operation> = { statfs, stat, open, create, pread }

export const latencyRows: Record<string, (task: Task) => Measure> = {
  statfs: task => timed(task, statfs(task)),
  stat: task => timed(task, stat(task), STAT_NAMES),
  open: task => timed(task, open(task)),
  create: task => timed(task, create(task)),
  pread: task => timed(task, pread(task)),
}
