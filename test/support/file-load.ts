/**
 * Many files, by synchronous calls from a process of its own:
 *
 *     node dist/test/support/file-load.js DIR COUNT
 *
 * Makes COUNT files in DIR, each with a line of its own, lists them, reads some back, removes them. Prints
 * milliseconds as JSON. Fails at the first thing that is not as it must be.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const [directory, countText] = process.argv.slice(2)
const count = Number(countText)
const at = join(directory!, 'many')
const nameOf = (i: number): string => `file-${String(i).padStart(6, '0')}`
const times: Record<string, number> = {}

function timed(name: string, body: () => void): void {
  const startMs = performance.now()
  body()
  times[name] = Math.round(performance.now() - startMs)
}

mkdirSync(at)
timed('make', () => { for (let i = 0; i < count; i++) writeFileSync(join(at, nameOf(i)), `${i}\n`) })
timed('list', () => {
  const names = readdirSync(at)
  assert.equal(names.length, count)
  assert.equal(new Set(names).size, count)
  names.sort().forEach((name, i) => assert.equal(name, nameOf(i)))
})
timed('list with types', () => {
  const entries = readdirSync(at, { withFileTypes: true })
  assert.equal(entries.filter(entry => entry.isFile()).length, count)
})
timed('stat', () => {
  for (let i = 0; i < count; i += 7) assert.equal(statSync(join(at, nameOf(i))).size, `${i}\n`.length)
})
timed('read', () => {
  for (let i = 0; i < count; i += 101) assert.equal(readFileSync(join(at, nameOf(i)), 'utf8'), `${i}\n`)
})
timed('remove', () => { for (let i = 0; i < count; i++) unlinkSync(join(at, nameOf(i))) })
assert.deepEqual(readdirSync(at), [])
rmdirSync(at)
console.log(JSON.stringify(times))
