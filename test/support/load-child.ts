/**
 * Uses mounts from another process, with as many threads as it is told to: what hangs there does
 * not hang the test. Started by `LoadChild`; each message is one load.
 */
import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SeededRandom } from './seeded-random.js'

export interface Load {
  kind: 'everything' | 'random' | 'keep'
  dir: string
  callers: number
  rounds: number
  seed: number
}

function content(random: SeededRandom): Buffer {
  const bytes = Buffer.alloc(random.below(8) === 0 ? random.below(300_000) : random.below(9000))
  for (let i = 0; i < bytes.length; i += 97) bytes[i] = random.below(256)
  return bytes
}

/** Each kind of request once, on files that only this caller has. */
async function everything(dir: string, random: SeededRandom): Promise<void> {
  const own = join(dir, `d${random.seed}`)
  await mkdir(own)
  const bytes = content(random)
  await writeFile(join(own, 'a'), bytes)
  if (!(await readFile(join(own, 'a'))).equals(bytes)) throw new Error(`${own}/a: read something else`)
  await writeFile(join(own, 'b'), 'second')
  await rename(join(own, 'b'), join(own, 'c'))
  const names = (await readdir(own)).sort().join()
  if (names !== 'a,c') throw new Error(`${own} has ${names}`)
  if ((await stat(join(own, 'a'))).size !== bytes.length) throw new Error(`${own}/a: another size`)
  await unlink(join(own, 'a'))
  await unlink(join(own, 'c'))
  await rmdir(own)
}

/** Whatever comes to mind, on files that all callers share. */
async function anything(dir: string, random: SeededRandom): Promise<void> {
  const path = join(dir, `d${random.below(4)}`, `f${random.below(40)}`)
  const other = join(dir, `d${random.below(4)}`, `f${random.below(40)}`)
  try {
    switch (random.below(10)) {
      case 0: case 1: await writeFile(path, content(random)); break
      case 2: await readFile(path); break
      case 3: await stat(path); break
      case 4: await unlink(path); break
      case 5: await rename(path, other); break
      case 6: await readdir(join(dir, `d${random.below(4)}`), { withFileTypes: true }); break
      case 7: await rm(join(dir, `d${random.below(4)}`), { recursive: true, force: true }); break
      case 8: await mkdir(join(dir, `d${random.below(4)}`)); break
      case 9: {
        const file = await open(path, 'r+')
        try {
          await unlink(path)
          await file.write('unlinked', 0)
        } finally {
          await file.close()
        }
      }
    }
  } catch (error) {
    // others do the same: what one wants is often gone, or there already
    if (!['ENOENT', 'EEXIST', 'ENOTEMPTY', 'ENOTDIR', 'EISDIR', 'ESTALE'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

/** A file that stays. */
async function keep(dir: string, random: SeededRandom): Promise<void> {
  await writeFile(join(dir, `k${random.seed}-${random.below(1e9)}`), 'kept')
}

const KINDS = { everything, random: anything, keep }

async function run({ kind, dir, callers, rounds, seed }: Load): Promise<void> {
  await Promise.all(Array.from({ length: callers }, async (_, caller) => {
    const random = new SeededRandom(seed * 1000 + caller)
    for (let round = 0; round < rounds; round++) await KINDS[kind](dir, random)
  }))
}

process.on('message', (load: Load) => {
  run(load).then(() => process.send!(''), error => process.send!(String((error as Error).stack)))
})
