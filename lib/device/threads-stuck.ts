/** Waiting for threads to end, which one that hangs in a system call does not. */

export class ThreadsStuckError extends Error {
  /** Resolves when they have ended after all: until then they may use what they were given. */
  readonly ended: Promise<unknown>

  constructor(ended: Promise<unknown>) {
    super('a thread of the device hangs in a system call on the shared directory')
    this.name = 'ThreadsStuckError'
    this.ended = ended
  }
}

/** @throws ThreadsStuckError when they have not ended after so many milliseconds */
export async function threadsEnd(ended: Promise<unknown>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new ThreadsStuckError(ended)), timeoutMs) })
  try {
    await Promise.race([ended, late])
  } finally {
    clearTimeout(timer)
  }
}
