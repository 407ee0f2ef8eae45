/** What is done on a mount while a system call below it fails: some of everything, and what of it was acknowledged. */
import { constants, createReadStream } from 'node:fs'
import * as fs from 'node:fs/promises'
import { join } from 'node:path'

export interface Done {
  /** Errors that the operations had, by operation. */
  errors: [operation: string, code: string][]
  /** Content that an fsync and a close have acknowledged, by name. */
  acknowledged: Map<string, Buffer>
  /** Data that was wrong, without any error. */
  wrong: string[]
}

function content(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + seed) & 0xff
  return bytes
}

const SMALL = content(100, 1)
const LARGE = content(300_000, 2)

export async function runScenario(dir: string): Promise<Done> {
  const done: Done = { errors: [], acknowledged: new Map(), wrong: [] }
  async function attempt<T>(operation: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      done.errors.push([operation, (error as NodeJS.ErrnoException).code ?? String(error)])
      return undefined
    }
  }
  async function store(name: string, bytes: Buffer): Promise<void> {
    await attempt(`store ${name}`, async () => {
      const file = await fs.open(join(dir, name), 'w')
      let good = false
      try {
        for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at, Math.min(70_000, bytes.length - at))).bytesWritten
        await file.sync()
        good = true
      } finally {
        await file.close()
        if (good) done.acknowledged.set(name, bytes)
      }
    })
  }
  async function compare(name: string, bytes: Buffer): Promise<void> {
    await attempt(`read ${name}`, async () => {
      const parts: Buffer[] = []
      for await (const part of createReadStream(join(dir, name))) parts.push(part as Buffer)
      const there = Buffer.concat(parts)
      if (done.acknowledged.has(name) && !there.equals(bytes)) done.wrong.push(`${name}: ${there.length} bytes read, ${bytes.length} written, or not the same`)
    })
  }
  await attempt('statfs', () => fs.statfs(dir))
  await store('small', SMALL)
  await store('large', LARGE)
  await compare('small', SMALL)
  await compare('large', LARGE)
  await attempt('mkdir', () => fs.mkdir(join(dir, 'd')))
  await attempt('symlink', () => fs.symlink('small', join(dir, 'link')))
  const target = await attempt('readlink', () => fs.readlink(join(dir, 'link')))
  if (target !== undefined && target !== 'small') done.wrong.push(`readlink: ${target}`)
  await attempt('link', () => fs.link(join(dir, 'small'), join(dir, 'hard')))
  await attempt('chmod', () => fs.chmod(join(dir, 'hard'), 0o600))
  await attempt('utimes', () => fs.utimes(join(dir, 'hard'), 1000, 2000))
  await attempt('append', () => fs.appendFile(join(dir, 'grown'), 'one '))
  await attempt('append', () => fs.appendFile(join(dir, 'grown'), 'two'))
  await attempt('truncate', () => fs.truncate(join(dir, 'grown'), 3))
  await attempt('copy', () => fs.copyFile(join(dir, 'small'), join(dir, 'copy'), constants.COPYFILE_EXCL))
  await attempt('rename', () => fs.rename(join(dir, 'copy'), join(dir, 'd', 'moved')))
  const names = await attempt('readdir', () => fs.readdir(dir))
  for (const name of done.acknowledged.keys()) if (names && !names.includes(name)) done.wrong.push(`readdir: no ${name}`)
  await attempt('stat', () => fs.stat(join(dir, 'd')))
  await attempt('readdir', () => fs.readdir(join(dir, 'd')))
  await attempt('unlink', () => fs.rm(join(dir, 'd', 'moved'), { force: true }))
  await attempt('rmdir', () => fs.rmdir(join(dir, 'd')))
  return done
}

/** What an fsync acknowledged is in the shared directory. @returns what is not */
export async function lost(source: string, { acknowledged }: Done): Promise<string[]> {
  const missing: string[] = []
  for (const [name, bytes] of acknowledged) {
    const there = await fs.readFile(join(source, name)).catch(() => undefined)
    if (!there?.equals(bytes)) missing.push(`${name}: ${there ? `${there.length} other bytes` : 'missing'} in the shared directory`)
  }
  return missing
}
