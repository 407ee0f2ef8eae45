/** What takes longer than a second says so, on a terminal. */

const AFTER_MS = 1000
const EVERY_MS = 500

let shown = false

/** Takes it away, before something else is written. */
export function clearProgress(): void {
  if (shown) process.stderr.write('\r\x1b[K')
  shown = false
}

/** Waits for `work`, and says on standard error what for, until it is done. */
export async function withProgress<T>(what: string, work: Promise<T>): Promise<T> {
  if (process.stderr.isTTY !== true) return await work
  const start = performance.now()
  const show = (): void => {
    const seconds = Math.floor((performance.now() - start) / 1000)
    if (seconds * 1000 < AFTER_MS) return
    shown = true
    process.stderr.write(`\r${what} … ${seconds} s\x1b[K`)
  }
  const timer = setInterval(show, EVERY_MS)
  // it must not keep a process that has nothing else to do
  timer.unref()
  try {
    return await work
  } finally {
    clearInterval(timer)
    clearProgress()
  }
}
