/**
 * Changes what names lead to as fast as it can, until it is killed: node swap-names.js ROOT OUTSIDE.
 * `x` is a directory, a symbolic link to OUTSIDE or nothing; `f` a file, a link to OUTSIDE/secret or
 * a hard link; `move` is in the directory `x` or beside it.
 */
import { linkSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const [root, outside] = process.argv.slice(2) as [string, string]
const at = (name: string): string => join(root, name)
mkdirSync(at('directory'))
writeFileSync(at('directory/secret'), 'inside')
symlinkSync(outside, at('link'))
writeFileSync(at('file'), 'inside')
symlinkSync(join(outside, 'secret'), at('file link'))
mkdirSync(at('move'))
writeFileSync(at('move/secret'), 'inside')
console.log('ready')

/** The other side may have taken a name, or made one. */
function attempt(change: () => void): void {
  try {
    change()
  } catch {
    rmSync(at('f'), { force: true })
  }
}

const renames: readonly [from: string, to: string][] = [
  ['directory', 'x'], ['move', 'x/move'], ['file', 'f'], ['f', 'file'], ['x/move', 'move'], ['x', 'directory'],
  ['link', 'x'], ['file link', 'f'], ['f', 'file link'], ['x', 'link'],
]
for (;;) {
  for (const [from, to] of renames) attempt(() => renameSync(at(from), at(to)))
  attempt(() => linkSync(at('file'), at('f')))
  attempt(() => rmSync(at('f')))
}
