/**
 * Threads that wait in a system call, where Node cannot end them: at the end of the process each is
 * told to end, or process.exit would wait for it for ever.
 */

const tellers = new Set<() => void>()

function tellAll(): void {
  for (const tell of tellers) tell()
}

/**
 * @param tell wakes a thread of this one and has it end; must not throw
 * @returns to be called when the thread has ended
 */
export function tellAtExit(tell: () => void): () => void {
  if (tellers.size === 0) process.on('exit', tellAll)
  tellers.add(tell)
  return () => {
    if (tellers.delete(tell) && tellers.size === 0) process.off('exit', tellAll)
  }
}
