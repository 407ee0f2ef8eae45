/** What a process in the background does not hold: the terminal, and a directory. */
import { closeSync, openSync } from 'node:fs'
import { dup2 } from '../lib/sys/io.js'

export function detach(): void {
  const nowhere = openSync('/dev/null', 'r+')
  for (const fd of [0, 1, 2]) dup2(nowhere, fd)
  closeSync(nowhere)
  process.chdir('/')
}
