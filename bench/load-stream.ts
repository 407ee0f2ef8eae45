/** Rows of large transfers. Passes over a file until the time is over; dropping caches is not timed. */
import { statfsSync } from 'node:fs'
import { join } from 'node:path'
import { BIG_BYTES, MIB } from './fixture-names.js'
import * as sys from './load-sys.js'
import { Clock, type Task } from './load-task.js'
import type { Measure } from './rows.js'

const PAGE = 4096
const WRITE_BYTES = 64 * MIB
/** How long a file that was removed may take to be gone. */
const SETTLE_MS = 500

/** Runs passes and adds up their operations. */
function passes(task: Task, prepare: () => void, pass: () => number): Measure {
  const clock = new Clock(task.servers)
  let ops = 0
  do {
    prepare()
    clock.start()
    ops += pass()
    clock.stop()
  } while (clock.seconds < task.seconds)
  return clock.measure(ops)
}

function seqread(task: Task): Measure {
  const fd = sys.openPath(join(task.root, 'big'), sys.O_RDONLY)
  const buffer = sys.alloc(MIB)
  return passes(task, () => sys.dropFilePages(fd), () => {
    for (let at = 0; at < BIG_BYTES; at += MIB) {
      if (sys.pread(fd, buffer, MIB, at) !== MIB) sys.fail('pread', `at ${at}`)
    }
    return BIG_BYTES / MIB
  })
}

function seqwrite(task: Task): Measure {
  const path = join(task.work, 'written')
  const buffer = sys.alloc(MIB)
  const cPath = sys.cString(path)
  const free = (): number => statfsSync(task.work).bfree
  const room = free()
  const measure = passes(task, () => {
    sys.unlink(cPath)
    // a server hears later that nobody has the file open any more: freeing its pages is not writing
    for (let i = 0; i < SETTLE_MS && free() < room; i++) sys.sleep(1)
  }, () => {
    const fd = sys.openPath(path, sys.O_WRONLY | sys.O_CREAT | sys.O_EXCL)
    for (let at = 0; at < WRITE_BYTES; at += MIB) {
      if (sys.write(fd, buffer, MIB) !== MIB) sys.fail('write', `at ${at}`)
    }
    // where writes are cached, they are only done now
    if (sys.fsync(fd) < 0) sys.fail('fsync', path)
    sys.close(fd)
    return WRITE_BYTES / MIB
  })
  sys.unlink(cPath)
  return measure
}

/** Every page of the file once, in an order without locality, with the kernel's usual read-around. */
function mmap(task: Task): Measure {
  const fd = sys.openPath(join(task.root, 'big'), sys.O_RDONLY)
  const { address, bytes } = sys.mapFile(fd, BIG_BYTES)
  const pages = BIG_BYTES / PAGE
  let sum = 0
  const measure = passes(task, () => {
    sys.zapMapping(address, BIG_BYTES)
    sys.dropFilePages(fd)
  }, () => {
    let page = 1
    for (let i = 0; i < pages; i++) {
      page = (page * 5 + 12345) % pages
      sum += bytes[page * PAGE]!
    }
    return pages
  })
  if (sum < 0) throw new Error('unreachable: keeps the reads')
  return measure
}

export const streamRows: Record<string, (task: Task) => Measure> = { seqread, seqwrite, mmap }
