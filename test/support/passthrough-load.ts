/**
 * A worker that uses a shared directory in random ways, together with others that do the same.
 * It gives back everything it was given and tells what went wrong.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { errno } from '../../lib/errors.js'
import { Passthrough } from '../../lib/device/passthrough/passthrough.js'
import type { PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { O_RDWR } from '../../lib/sys/file.js'
import { releaseScratch } from '../../lib/sys/memory.js'
import { FuseClient } from './fuse-client.js'

const ROOT = 1n

export interface Load {
  shared: PassthroughShared
  seed: number
  rounds: number
  names: number
}

const { shared, seed, rounds, names } = workerData as Load
const wrong: string[] = []
const client = new FuseClient(new Passthrough(shared))
let state = seed

function random(n: number): number {
  state = Math.imul(state, 1103515245) + 12345 & 0x7fffffff
  return (state >>> 8) % n
}

/** Errors that another worker's removals and forgets explain. */
const EXPLAINED = new Set([0, -errno.ENOENT, -errno.EEXIST, -errno.ESTALE])

function expect(what: string, error: number): void {
  if (!EXPLAINED.has(error)) wrong.push(`${what}: ${error}`)
}

function round(): void {
  const name = `f${random(names)}`
  switch (random(8)) {
    case 0: {
      const made = client.create(ROOT, name, O_RDWR)
      expect('create', made.error)
      if (made.error !== 0) return
      expect('write', Math.min(0, client.write(made.nodeid, made.fh, 0n, Buffer.from(name))))
      const { data, error } = client.read(made.nodeid, made.fh, 0n, 100)
      // another worker may have written the same file by another name
      if (error !== 0 || !/^f\d+$/.test(data.toString())) wrong.push(`read ${name}: ${error} ${data.toString()}`)
      expect('release', client.release(made.nodeid, made.fh))
      return
    }
    case 1: return expect('unlink', client.unlink(ROOT, name))
    case 2: return client.forgetAll()
    case 3: {
      for (const entry of client.list(ROOT, true)) {
        if (entry.nodeid !== 0n && client.lookups.get(entry.nodeid) === 1 && !EXPLAINED.has(client.getattr(entry.nodeid).error)) wrong.push('a node that was not looked up')
      }
      return
    }
    case 4: return expect('rename', client.rename(ROOT, name, ROOT, `f${random(names)}`))
    default: {
      const entry = client.lookup(ROOT, name)
      expect('lookup', entry.error)
      if (entry.error !== 0) return
      const { error, attr } = client.getattr(entry.nodeid)
      // the lookup is ours: whoever else forgets, the node stays
      if (error !== 0 && error !== -errno.ESTALE) wrong.push(`getattr: ${error}`)
      if (error === 0 && attr.ino !== entry.attr.ino) wrong.push('another inode behind a node id')
    }
  }
}

for (let i = 0; i < rounds; i++) round()
client.forgetAll()
client.close()
releaseScratch()
parentPort!.postMessage(wrong)
