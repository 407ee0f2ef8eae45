/** A thread that leaves descriptors of large files to be closed, closes what it finds, and waits for what others close. */
import { parentPort, workerData } from 'node:worker_threads'
import { Freeing } from '../../lib/device/passthrough/freeing.js'
import type { PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { fallocate, O_RDWR, O_TMPFILE, openPath } from '../../lib/sys/file.js'
import { close } from '../../lib/sys/io.js'
import { releaseScratch, viewRegion } from '../../lib/sys/memory.js'

export interface FreeingLoad {
  shared: PassthroughShared
  rounds: number
}

const MIB = 1 << 20
const { shared, rounds } = workerData as FreeingLoad
const freeing = new Freeing(new Int32Array(viewRegion(shared.address, shared.lengthBytes).view.buffer), shared.address, shared.freeingLimit)
freeing.enable()
let left = 0
for (let i = 0; i < rounds; i++) {
  const fd = openPath(shared.options.root, O_TMPFILE | O_RDWR)
  if (fd < 0 || fallocate(fd, 0, 0, MIB) < 0) throw new Error(`a file of a MiB: ${fd}`)
  if (freeing.leave(fd)) left++
  else close(fd)
  if (i % 3 === 0 && freeing.claim()) freeing.finish()
  if (i % 7 === 0) freeing.settle()
}
freeing.settle()
parentPort!.postMessage(left)
releaseScratch()
