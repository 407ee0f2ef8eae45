/** Waiting for threads to end, which one that hangs in a system call does not. */
import { exitWithout } from '../sys/at-exit.js'

export class ThreadsStuckError extends Error {
  /** Resolves when they have ended after all: until then they may use what they were given. */
  readonly ended: Promise<unknown>

  constructor(ended: Promise<unknown>) {
    super('a thread of the device hangs in a system call on the shared directory')
    this.name = 'ThreadsStuckError'
    this.ended = ended
  }
}

/** A worker thread, as far as it has to do with its end. */
export interface EndingThread {
  unref(): void
}

/**
 * Threads that hang do not keep the process from ending.
 *
 * @throws ThreadsStuckError when they have not ended after so many milliseconds
 */
export async function threadsEnd(threads: Iterable<EndingThread>, ended: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new ThreadsStuckError(ended)), timeoutMs) })
  try {
    await Promise.race([ended, late])
  } catch (error) {
    for (const thread of threads) thread.unref()
    exitWithout(ended)
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/** What has not ended when it should have. */
export class StuckThreads {
  readonly #ended: Promise<unknown>[] = []

  /** @param error of whatever was to end threads */
  note(error: unknown): void {
    if (error instanceof ThreadsStuckError) this.#ended.push(error.ended)
  }

  /** Resolves when none is left; undefined when there was none. */
  get ended(): Promise<unknown> | undefined {
    return this.#ended.length > 0 ? Promise.all(this.#ended) : undefined
  }
}
