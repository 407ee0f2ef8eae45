/**
 * One program that works on a mount until SIGTERM, or until the mount goes away under it.
 *
 *   node soak-load.js KIND DIRECTORY SEED
 *
 * Exit codes: 0 told to end, 3 the mount failed (the errno on standard error), 1 it lied: data that
 * was written is not what is read. `writer` says `ack N` on standard output for each record that an
 * fsync has made safe; soak.ts looks for it in the shared directory afterwards.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, renameSync, rmSync, statSync, symlinkSync, unlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { pattern } from '../support/mock-fuse.js'
import { SeededRandom } from '../support/seeded-random.js'
import { buildRecord } from './soak-records.js'

const [kind, directory, seedText] = process.argv.slice(2) as [string, string, string]
const random = new SeededRandom(Number(seedText))
let ends = false
process.on('SIGTERM', () => { ends = true })
writeSync(1, 'works\n')

class Lie extends Error {}

/** Appends records, and says which are safe. */
async function writer(): Promise<void> {
  const fd = openSync(join(directory, `writer-${seedText}`), 'a', 0o644)
  for (let sequence = 1; !ends;) {
    const batch = random.between(1, 4)
    for (let i = 0; i < batch; i++) {
      const record = buildRecord(sequence++, random.between(8, 9000))
      if (writeSync(fd, record) !== record.length) throw Object.assign(new Error('a short write'), { code: 'EIO' })
    }
    fsyncSync(fd)
    writeSync(1, `ack ${sequence - 1}\n`)
    await setImmediate()
  }
  closeSync(fd)
}

/** Makes, fills, renames, lists, reads and removes, and knows what has to be there. */
async function churn(): Promise<void> {
  const root = join(directory, `churn-${seedText}`)
  mkdirSync(root)
  const files = new Map<string, { seed: number, size: number }>()
  let serial = 0
  const any = (): string => [...files.keys()][random.below(files.size)]!
  while (!ends) {
    const what = files.size === 0 ? 0 : random.below(8)
    if (what <= 1 && files.size < 200) {
      const name = `f${serial++}`
      const file = { seed: random.below(1000), size: random.below(4) === 0 ? random.below(300_000) : random.below(3000) }
      writeFileSync(join(root, name), pattern(file.size, file.seed))
      files.set(name, file)
    } else if (what <= 3) {
      const name = any()
      const { seed, size } = files.get(name)!
      if (!Buffer.from(pattern(size, seed)).equals(readFileSync(join(root, name)))) throw new Lie(`${name} has other data than was written`)
    } else if (what === 4) {
      const from = any()
      const to = `r${serial++}`
      renameSync(join(root, from), join(root, to))
      files.set(to, files.get(from)!)
      files.delete(from)
    } else if (what === 5) {
      const name = any()
      if (random.below(2) === 0) {
        unlinkSync(join(root, name))
        files.delete(name)
      } else if (statSync(join(root, name)).size !== files.get(name)!.size) {
        throw new Lie(`${name} has another size than was written`)
      }
    } else if (what === 6) {
      const names = readdirSync(root).filter(name => !name.startsWith('d')).sort()
      if (names.join() !== [...files.keys()].sort().join()) throw new Lie('the directory has other entries than were made')
    } else {
      const dir = join(root, `d${serial++}`)
      mkdirSync(dir)
      symlinkSync('../nowhere', join(dir, 'link'))
      writeFileSync(join(dir, 'file'), 'x')
      rmSync(dir, { recursive: true })
    }
    await setImmediate()
  }
}

/** Reads pieces of a large file and compares them. */
async function reader(): Promise<void> {
  const size = 4 << 20
  const path = join(directory, `reader-${seedText}`)
  const whole = pattern(size, 5)
  writeFileSync(path, whole)
  const into = Buffer.alloc(300_000)
  while (!ends) {
    const fd = openSync(path, 'r')
    for (let i = 0; i < 20 && !ends; i++) {
      const at = random.below(size)
      const n = readSync(fd, into, 0, random.between(1, into.length), at)
      if (!into.subarray(0, n).equals(whole.subarray(at, at + n))) throw new Lie(`other data at ${at}`)
      await setImmediate()
    }
    closeSync(fd)
  }
}

try {
  await ({ writer, churn, reader })[kind]!()
} catch (error) {
  process.stderr.write(`${kind}: ${error instanceof Lie ? error.message : (error as NodeJS.ErrnoException).code ?? String(error)}\n`)
  process.exitCode = error instanceof Lie || (error as NodeJS.ErrnoException).code === undefined ? 1 : 3
}
