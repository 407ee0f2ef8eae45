/**
 * Works on a directory until it is told to stop: one file grows by records with an fsync each,
 * others come, are read, renamed and go. Says what it did, and everything that was not as expected.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const dir = join(process.argv[2]!, 'load')
const RECORD = 64
const NAMES = 20
const wrong: string[] = []
let records = 0
let round = 0
let stopped = false

const record = (i: number): string => `record ${i} `.padEnd(RECORD - 1, '.') + '\n'
mkdirSync(dir)
const log = openSync(join(dir, 'log'), 'a')

function step(): void {
  try {
    writeSync(log, record(records))
    fsyncSync(log)
    records++
    const name = join(dir, `f${round++ % NAMES}`)
    const text = `content ${round}`.repeat(500)
    writeFileSync(name, text)
    renameSync(name, `${name}.moved`)
    if (readFileSync(`${name}.moved`, 'utf8') !== text) wrong.push(`${name}: other content`)
    if (round % 3 === 0) rmSync(`${name}.moved`)
    readdirSync(dir)
  } catch (error) {
    wrong.push((error as Error).message)
  }
  if (!stopped && wrong.length < 10) setImmediate(step)
  else finish()
}

function finish(): void {
  closeSync(log)
  const lines = readFileSync(join(dir, 'log'), 'utf8')
  if (lines.length !== records * RECORD) wrong.push(`${lines.length / RECORD} records, ${records} were acknowledged`)
  for (let i = 0; i < records; i++) if (lines.slice(i * RECORD, (i + 1) * RECORD) !== record(i)) wrong.push(`record ${i} is another`)
  process.send!({ records, wrong: wrong.slice(0, 10) }, () => process.disconnect())
}

process.on('message', () => { stopped = true })
process.send!('ready')
step()
