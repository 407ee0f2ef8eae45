/**
 * Unmounting what nobody uses. The counters of the requests are looked at a few times per
 * period, so that the data path need not know about it; nobody is woken by that but the main thread.
 */
const LOOKS = 4

/**
 * Calls `idle` when no request has come for a time: at the earliest after `timeoutMs`, at the
 * latest a quarter of it later. When that does not end the mount, it is called again after another
 * such time.
 *
 * @param requests how many there were so far
 * @returns stops it
 */
export function watchIdle(timeoutMs: number, requests: () => number, idle: () => Promise<void>): () => void {
  let last = requests()
  let quietLooks = 0
  const timer = setInterval(() => {
    const now = requests()
    quietLooks = now === last ? quietLooks + 1 : 0
    last = now
    if (quietLooks < LOOKS) return
    quietLooks = 0
    void idle()
  }, timeoutMs / LOOKS)
  timer.unref()
  return () => clearInterval(timer)
}
