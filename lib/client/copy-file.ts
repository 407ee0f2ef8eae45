/** copyFile of node:fs/promises: one file, within one tree. */
import { constants } from 'node:fs'
import { errno } from '../errors.js'
import { sizeOf } from './attributes.js'
import { FileIo } from './file-io.js'
import type { Tree } from './tree.js'

/** Most bytes that one copy is asked for. */
const COPY_BYTES = 1 << 30

/**
 * Copies a file, within the device where the device can.
 *
 * @param mode COPYFILE_* bits
 * @returns 0 or −errno
 */
export async function copyFile(tree: Tree, from: string, to: string, mode: number): Promise<number> {
  if ((mode & constants.COPYFILE_FICLONE_FORCE) !== 0) return -errno.EOPNOTSUPP
  const source = await tree.open(from, constants.O_RDONLY, 0)
  if (typeof source === 'number') return source
  const reads = new FileIo(tree, source)
  try {
    const attributes = await tree.access.attributes(source.node, source)
    if (typeof attributes === 'number') return attributes
    const exclusive = (mode & constants.COPYFILE_EXCL) !== 0 ? constants.O_EXCL : 0
    const target = await tree.open(to, constants.O_WRONLY | constants.O_CREAT | exclusive, attributes.mode & 0o7777)
    if (typeof target === 'number') return target
    const writes = new FileIo(tree, target)
    const error = target.node === source.node ? 0 : await copyData(tree, reads, writes, attributes.mode, sizeOf(attributes))
    const failed = await writes.close() || error
    // as libuv does: half a copy is none
    if (failed < 0) await tree.unlink(to)
    return failed
  } finally {
    await reads.close()
  }
}

async function copyData(tree: Tree, reads: FileIo, writes: FileIo, mode: number, size: number): Promise<number> {
  let error = await writes.truncate(0)
  if (error === 0) error = await tree.changes.mode(writes.file.node, mode & 0o7777)
  if (error < 0) return error
  if (reads.file.node.isDirectory) return -errno.EISDIR
  for (let at = 0; at < size;) {
    const copied = await reads.copyTo(writes, at, at, Math.min(size - at, COPY_BYTES))
    if (copied <= 0) return copied
    at += copied
  }
  return 0
}
