/**
 * One program that works on a mount whose backend dies now and then, until its standard input ends.
 * Nothing may fail, and everything has to be as if the backend had never gone. What it says on its
 * standard output is a JSON line: how much was done, and what went wrong.
 *
 *     node reconnect-child.js reader|appender|writer|names DIRECTORY
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, existsSync, fsyncSync, linkSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, readSync, renameSync, rmdirSync, statSync, symlinkSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface ChildReport {
  done: number
  failures: string[]
}

/** One line of the appender: its number, and itself again. */
export function record(number: number): string {
  return `${number} ${createHash('sha256').update(String(number)).digest('hex')}\n`
}

/** Rounds that are done on the slowest machine. */
const LEAST = 3
const FILES = 4
const CHUNK = 1 << 20

/** Contents of the reader's files. */
export function content(number: number): Buffer {
  const bytes = Buffer.alloc(3 * CHUNK + 4096 * number)
  for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32LE((i * 2654435761 + number) >>> 0, i)
  return bytes
}

let stopped = false
const failures: string[] = []
let done = 0

function expect(good: boolean, what: string): void {
  if (!good) failures.push(what)
}

/** Opened once, read again and again, past the page cache. */
function reader(dir: string): () => void {
  const files = Array.from({ length: FILES }, (_, i) => ({
    fd: openSync(join(dir, `read${i}`), constants.O_RDONLY | 0o40000), sum: createHash('sha256').update(content(i)).digest('hex'),
  }))
  const chunk = Buffer.from(new ArrayBuffer(CHUNK))
  return () => {
    const { fd, sum } = files[done % FILES]!
    const hash = createHash('sha256')
    for (let at = 0, n = 1; n > 0; at += n) hash.update(chunk.subarray(0, n = readSync(fd, chunk, 0, CHUNK, at)))
    expect(hash.digest('hex') === sum, `file ${done % FILES} has another checksum in round ${done}`)
  }
}

/** Appends records, each with its fsync: those are all there, once, in order. */
function appender(dir: string): () => void {
  const fd = openSync(join(dir, 'appended'), constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT, 0o644)
  return () => {
    const bytes = Buffer.from(record(done))
    expect(writeSync(fd, bytes) === bytes.length, `record ${done} was not written as a whole`)
    fsyncSync(fd)
  }
}

/** Writes blocks all over a file, and reads them back. */
function writer(dir: string): () => void {
  const fd = openSync(join(dir, 'written'), constants.O_RDWR | constants.O_CREAT, 0o644)
  const back = Buffer.alloc(10_000)
  return () => {
    const bytes = Buffer.alloc(10_000, String(done))
    const at = (done * 7919 % 300) * 10_000
    writeSync(fd, bytes, 0, bytes.length, at)
    if (done % 8 === 0) fsyncSync(fd)
    expect(readSync(fd, back, 0, back.length, at) === back.length && back.equals(bytes), `block ${done} reads otherwise`)
  }
}

/** What cannot be done twice. */
function names(dir: string): () => void {
  const own = join(dir, 'names')
  mkdirSync(own)
  const at = (name: string): string => join(own, name)
  return () => {
    mkdirSync(at('d'))
    const fd = openSync(at('d/new'), 'wx', 0o600)
    writeSync(fd, 'content')
    closeSync(fd)
    linkSync(at('d/new'), at('linked'))
    symlinkSync('somewhere', at('d/symbolic'))
    expect(readlinkSync(at('d/symbolic')) === 'somewhere', 'a symbolic link')
    renameSync(at('d/new'), at('moved'))
    renameSync(at('linked'), at('d/other'))
    expect(statSync(at('moved')).ino === statSync(at('d/other')).ino, 'two names of a file')
    expect(readFileSync(at('d/other'), 'utf8') === 'content', 'what is in it')
    expect(readdirSync(at('d')).sort().join() === 'other,symbolic', `names: ${readdirSync(at('d')).sort().join()}`)
    unlinkSync(at('moved'))
    expect(!existsSync(at('moved')) && lstatSync(at('d/other')).nlink === 1, 'one name is gone')
    unlinkSync(at('d/other'))
    unlinkSync(at('d/symbolic'))
    rmdirSync(at('d'))
    expect(readdirSync(own).length === 0, `left: ${readdirSync(own).join()}`)
  }
}

const KINDS = { reader, appender, writer, names }
const [kind, dir] = process.argv.slice(2) as [keyof typeof KINDS, string]
if (kind !== undefined && kind in KINDS) {
  process.stdin.on('end', () => { stopped = true }).resume()
  try {
    const round = KINDS[kind](dir)
    for (; (!stopped || done < LEAST) && failures.length < 5; done++) {
      round()
      await sleep(0)
    }
  } catch (error) {
    failures.push(`round ${done}: ${(error as Error).stack}`)
  }
  console.log(JSON.stringify({ done, failures }))
  process.exit(0)
}
