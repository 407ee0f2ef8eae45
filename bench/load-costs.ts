/** What the cost table and the growth plot ask of the load process; each takes a parameter. */
import { readdirSync, statfs as statfsAsync } from 'node:fs'
import { join } from 'node:path'
import { BIG_BYTES, growthDirectory, GROWTH_FILES } from './fixture-names.js'
import { forgetNames } from './load-caches.js'
import * as sys from './load-sys.js'
import { Clock, timed, type Task } from './load-task.js'
import type { Measure } from './rows.js'

/** So many statfs calls, one after the other. */
function calls(task: Task): Measure {
  const path = sys.cString(task.root)
  const buffer = sys.alloc(4096)
  return timed({ ...task, seconds: Infinity }, () => {
    if (sys.statfs(path, buffer) < 0) sys.fail('statfs', task.root)
  }, task.parameter)
}

/** So many statfs calls a second. */
function trickle(task: Task): Measure {
  const path = sys.cString(task.root)
  const buffer = sys.alloc(4096)
  const never = new Int32Array(new SharedArrayBuffer(4))
  const clock = new Clock(task.servers)
  clock.start()
  const startMs = performance.now()
  let done = 0
  while (performance.now() - startMs < task.seconds * 1000) {
    if (sys.statfs(path, buffer) < 0) sys.fail('statfs', task.root)
    done++
    Atomics.wait(never, 0, 0, Math.max(0, startMs + done * 1000 / task.parameter! - performance.now()))
  }
  clock.stop()
  return clock.measure(done)
}

/** So many statfs calls at once, by the threads of libuv: UV_THREADPOOL_SIZE has to allow it. */
async function inFlight(task: Task): Promise<Measure> {
  const clock = new Clock(task.servers)
  let done = 0
  const endMs = performance.now() + task.seconds * 1000
  clock.start()
  await Promise.all(Array.from({ length: task.parameter! }, () => new Promise<void>((resolve, reject) => {
    const next = (): void => statfsAsync(task.root, error => {
      if (error) return reject(error)
      done++
      if (performance.now() < endMs) next()
      else resolve()
    })
    next()
  })))
  clock.stop()
  return clock.measure(done)
}

/** Reads of so many bytes with O_DIRECT, one after the other. */
function readSize(task: Task): Measure {
  const lengthBytes = task.parameter!
  const fd = sys.openPath(join(task.root, 'big'), sys.O_RDONLY | sys.O_DIRECT)
  const buffer = sys.alloc(lengthBytes)
  const blocks = BIG_BYTES / lengthBytes
  let block = 0
  const measured = timed(task, () => {
    block = (block + 1) % blocks
    if (sys.pread(fd, buffer, lengthBytes, block * lengthBytes) !== lengthBytes) sys.fail('pread', `${lengthBytes} bytes`)
  })
  sys.close(fd)
  return measured
}

/** stat of the last thousand of so many files, when the server knows all of them. */
function knownInodes(task: Task): Measure {
  const buffer = sys.alloc(4096)
  forgetNames(task)
  const directories = Math.ceil(task.parameter! / GROWTH_FILES)
  const clock = new Clock(task.servers)
  let ops = 0
  for (let i = 0; i < directories; i++) {
    const directory = join(task.root, growthDirectory(i))
    const names = readdirSync(directory).slice(0, task.parameter! - i * GROWTH_FILES)
    const paths = sys.cStrings(names.map(name => `${directory}/${name}`))
    const last = i === directories - 1
    if (last) clock.start()
    for (const path of paths) if (sys.stat(path, buffer) < 0) sys.fail('stat', directory)
    if (last) {
      clock.stop()
      ops = paths.length
    }
  }
  forgetNames(task)
  return clock.measure(ops)
}

export const costRows: Record<string, (task: Task) => Measure | Promise<Measure>> = { calls, trickle, inFlight, readSize, knownInodes }
