/**
 * A hostile device behind the library's own client: each caller has a value or a negative errno, once,
 * whatever the device answers; decoders never throw; when the ring is broken everybody has an error.
 */
import { decodeStatfs } from '../../lib/client/attributes.js'
import { decodeAttrOut, decodeCreated, decodeEntry, decodeOpened, decodeStatxOut } from '../../lib/client/entry-reply.js'
import type { Decode } from '../../lib/client/engine-request.js'
import { FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op, opcodeName } from '../../lib/fuse/opcodes.js'
import { rewindScratch, scratchMark } from '../../lib/sys/memory.js'
import { EngineFixture } from '../support/engine-fixture.js'
import { args, names } from '../support/mock-fuse.js'
import { ALL_FEATURES } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'
import type { HostileReport } from './hostile-device.js'

const BATCHES = 60
/** What is behind them is what was there before. */
const NOISE_BYTES = 600
const WORDS = [0, 1, 2, 7, 24, 128, 255, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]
const NAME = names('a name')
const payload: Decode<Buffer> = ({ region, payloadAt, payloadBytes }) => Buffer.from(region.bytes.subarray(payloadAt, payloadAt + payloadBytes))

const ASKED: [opcode: number, args: Uint8Array, decode: Decode<unknown>][] = [
  [Op.LOOKUP, NAME, decodeEntry], [Op.GETATTR, args(16), decodeAttrOut], [Op.STATX, args(24), decodeStatxOut], [Op.OPEN, args(8), decodeOpened],
  [Op.CREATE, args(16, {}, NAME), decodeCreated], [Op.STATFS, new Uint8Array(0), ({ region, at }) => decodeStatfs(region.view, at)], [Op.READLINK, new Uint8Array(0), payload],
  [Op.GETXATTR, args(8, { 0: 500 }, NAME), payload], [Op.READDIRPLUS, args(40, { 16: 4096 }), payload], [Op.UNLINK, NAME, () => 0], [Op.READ, args(40, { 16: 5000 }), payload],
]

/** One session, until its ring is broken. @throws Error for a finding */
export async function hostileEngine(seed: number, report: HostileReport): Promise<void> {
  const random = new SeededRandom(seed)
  const mark = scratchMark()
  const fixture = new EngineFixture({ features: ALL_FEATURES[random.below(ALL_FEATURES.length)]!, queueSize: 16, largeBuffers: 4 })
  const { engine, device, region } = fixture
  const calls: Promise<void>[] = []
  let waiting = 0
  const findings: string[] = []
  const ask = (): void => {
    const [opcode, body, decode] = ASKED[random.below(ASKED.length)]!
    const signal = random.below(8) === 0 ? AbortSignal.abort() : undefined
    waiting++
    report.requests++
    calls.push(engine.send(opcode, 1, 0, fixture.args(body), decode, signal ? { signal } : {}).then(value => {
      waiting--
      if (typeof value === 'number' && value < 0) report.refused++
      else report.good++
      if (typeof value === 'number' && value <= -512) findings.push(`${opcodeName(opcode)} is answered ${value}`)
    }, error => { findings.push(`${opcodeName(opcode)} throws ${(error as Error).stack}`) }))
  }
  try {
    for (let batch = 0; batch < BATCHES && fixture.broken.length === 0; batch++) {
      for (let i = random.below(10); i > 0; i--) ask()
      await Promise.resolve()
      device.take()
      for (let i = random.below(12); i > 0 && device.pending.length > 0; i--) {
        const request = device.pending[random.below(device.pending.length)]!
        let used = random.between(FuseOutHeader.SIZE, request.room)
        let [length, error, unique] = [used, random.below(4) === 0 ? -random.between(1, 133) : 0, request.unique]
        if (error !== 0) used = length = FuseOutHeader.SIZE
        for (const buffer of request.writable) {
          const from = buffer.address - region.address
          const end = from + Math.min(buffer.length, NOISE_BYTES)
          for (let at = from; at + 4 <= end; at += 4) region.view.setUint32(at, random.below(2) === 0 ? WORDS[random.below(WORDS.length)]! : random.below(2 ** 32), true)
        }
        if (random.below(3) > 0) report.mutated++
        else used = length
        switch (random.below(12)) {
          case 0: used = [0, 15, 16, request.room + 1, 0xffff_ffff][random.below(5)]!; break
          case 1: length = WORDS[random.below(WORDS.length)]!; break
          case 2: error = [1, -511, -512, 0x7fff_ffff, -0x8000_0000][random.below(5)]!; break
          case 3: unique += BigInt(random.between(-4, 4)); break
          case 4: used = length = request.room; break
        }
        const [first] = request.writable
        if (first && first.length >= FuseOutHeader.SIZE) {
          const at = first.address - region.address
          region.view.setUint32(at + FuseOutHeader.len, length, true)
          region.view.setInt32(at + FuseOutHeader.error, error, true)
          region.view.setBigUint64(at + FuseOutHeader.unique, BigInt.asUintN(64, unique), true)
        }
        device.giveBack(request, used)
      }
      if (random.below(100) === 0) device.jumpUsedIndex(random.between(1, 40))
      engine.called()
      await fixture.hiprio()
    }
    if (fixture.broken.length > 0) report.broken++
    engine.abort()
    await Promise.all(calls)
    if (waiting > 0) findings.push(`${waiting} callers wait for ever`)
    if (findings.length > 0) throw new Error(findings[0])
    report.runs++
  } finally {
    fixture.close()
    rewindScratch(mark)
  }
}
