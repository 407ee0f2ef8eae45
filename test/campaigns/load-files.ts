/**
 * Works on many open files with many threads until it is told to stop (load.ts). Every block says
 * which it is, how often it was written, and has a checksum; what is read must be what was written last.
 */
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { SeededRandom } from '../support/seeded-random.js'

const BLOCK_BYTES = 4096
const BLOCKS = 16

const [dir, filesText, callersText, seedText] = process.argv.slice(2) as [string, string, string, string]
const files: FileHandle[] = []
/** How often each block was written; 0 for never. */
const written = new Uint32Array(Number(filesText) * BLOCKS)
const busy = new Uint8Array(written.length)
const wrong: string[] = []
let operations = 0
let stopped = false


function fill(block: Buffer, index: number, version: number): void {
  block.fill(version & 0xff)
  block.writeUInt32LE(index, 4)
  block.writeUInt32LE(version, 8)
  block.writeUInt32LE(crc32(block.subarray(4)), 0)
}

async function work(random: SeededRandom): Promise<void> {
  const block = Buffer.alloc(BLOCK_BYTES)
  while (!stopped && wrong.length === 0) {
    const index = random.below(written.length)
    if (busy[index] === 1) continue
    busy[index] = 1
    const file = files[Math.floor(index / BLOCKS)]!
    const at = index % BLOCKS * BLOCK_BYTES
    if (random.below(3) === 0 || written[index] === 0) {
      fill(block, index, written[index]! + 1)
      const { bytesWritten } = await file.write(block, 0, BLOCK_BYTES, at)
      if (bytesWritten !== BLOCK_BYTES) wrong.push(`block ${index}: ${bytesWritten} bytes written`)
      written[index]!++
      if (random.below(50) === 0) await file.sync()
    } else {
      const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, at)
      if (bytesRead !== BLOCK_BYTES || block.readUInt32LE(0) !== crc32(block.subarray(4)) || block.readUInt32LE(4) !== index || block.readUInt32LE(8) !== written[index]) {
        wrong.push(`block ${index}: ${bytesRead} bytes, of block ${block.readUInt32LE(4)} version ${block.readUInt32LE(8)}, expected version ${written[index]}`)
      }
    }
    busy[index] = 0
    operations++
  }
}

process.on('message', message => {
  if (message === 'stop') stopped = true
  else process.send!({ operations, wrong })
})
for (let i = 0; i < Number(filesText); i++) files.push(await open(join(dir, `file-${i}`), 'w+'))
process.send!('ready')
await Promise.all(Array.from({ length: Number(callersText) }, (_, caller) => work(new SeededRandom(Number(seedText) * 1000 + caller)))).catch(error => { wrong.push((error as Error).message) })
for (const file of files) await file.close()
process.send!({ operations, wrong, done: true }, () => process.disconnect())
