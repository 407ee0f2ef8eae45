/** Rings of four entries on real mounts: many callers, a device that is slow and unordered, callers that are interrupted meanwhile. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Counter, sumCounter } from '../../lib/driver/counters.js'
import { Bench, withDevice } from '../support/driver-mount.js'
import { LoadChild } from '../support/load.js'
import { missing } from '../support/peers.js'
import { within } from '../support/program.js'
import { Recording } from '../support/recording.js'
import { ThreadedDevice } from '../support/threaded-device.js'

const options = { skip: missing('emulated') }
const CALLERS = 64

for (const indirectDesc of [true, false]) {
  t.test(`ring size 4, ${CALLERS} callers, answers slow and out of order, ${indirectDesc ? 'indirect' : 'direct'}: nothing is lost`, options, async t => {
    using bench = new Bench()
    const recording = new Recording()
    const { handlers, directory } = bench.serve()
    const device = new ThreadedDevice({
      tag: `full-${process.pid}-${indirectDesc}`, handlers: recording.wrap(handlers, directory), features: { indirectDesc, eventIdx: true }, holdMs: 3, hiprioHoldMs: 800,
    })
    const load = new LoadChild(CALLERS)
    try {
      await withDevice(t, device, bench.dir, { queueSize: 4 }, async ({ fs }) => {
        await load.run({ kind: 'everything', dir: bench.dir, callers: CALLERS, rounds: 1, seed: 4 })
        const parked = sumCounter(fs.counters, Counter.PARKED)
        t.ok(parked > CALLERS, `${parked} requests found the ring full`)
        t.equal(sumCounter(fs.counters, Counter.BAD_REPLIES), 0)
      })
    } finally {
      await load.end()
    }
    const { wrong, given, forgotten } = recording.account()
    t.strictSame(wrong, [], `${given} lookups given, ${forgotten} forgotten`)
    const forgets = recording.forgets().length
    t.ok(device.rings[0]!.available < forgets, `hiprio was full: ${forgets} FORGETs in ${device.rings[0]!.available} messages`)
    t.ok(device.rings.every(ring => ring.available === ring.used))
  })
}

/** The end of a process: the signal, and how long it took. */
async function endsBy(child: ChildProcess, signal: NodeJS.Signals): Promise<{ by: NodeJS.Signals | null | undefined, ms: number }> {
  const start = performance.now()
  child.kill(signal)
  const exit = await within(10_000, once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>)
  return { by: exit?.[1], ms: performance.now() - start }
}

for (const queues of [1, 2]) {
  t.test(`signals while every ring is full and the device answers nothing, ${queues === 1 ? 'one queue' : `${queues} queues`}`, options, async t => {
    using bench = new Bench()
    writeFileSync(join(bench.source, 'file'), 'x'.repeat(16 * 4096))
    const recording = new Recording()
    const device = new ThreadedDevice({
      tag: `killed-${process.pid}-${queues}`, requestQueues: queues, handlers: recording.wrap(bench.serve({ cache: 'never' }).handlers), features: { indirectDesc: false, eventIdx: true },
    })
    await withDevice(t, device, bench.dir, { queues, queueSize: 4 }, async ({ fs }) => {
      device.hold('READ')
      const readers: ChildProcess[] = []
      const start = async (): Promise<void> => {
        readers.push(spawn('dd', [`if=${join(bench.dir, 'file')}`, 'bs=4k', 'count=1', `skip=${readers.length}`], { stdio: ['ignore', 'pipe', 'ignore'] }))
        await sleep(30)
      }
      // without indirect descriptors a ring of four holds one request
      while (device.holding < queues) await start()
      const inDevice = readers.length
      const parked = (): number => sumCounter(fs.counters, Counter.PARKED)
      for (let i = 0; i < 6; i++) await start()
      // their OPENs wait behind the READs
      for (let tries = 0; parked() < 6 && tries < 200; tries++) await sleep(10)
      t.equal(device.holding, queues, 'the device has one for each ring')
      t.ok(parked() >= 6, `${parked()} requests wait on our side`)

      const waits = readers.slice(inDevice)
      for (const [child, signal] of [[waits[1]!, 'SIGTERM'], [waits[3]!, 'SIGKILL'], [waits[0]!, 'SIGTERM']] as const) {
        const { by, ms } = await endsBy(child, signal)
        t.equal(by, signal, `${signal} of one whose request is still on our side: after ${Math.round(ms)} ms`)
      }
      // dd has a handler for this one
      waits[2]!.kill('SIGINT')
      await sleep(300)
      t.equal(waits[2]!.signalCode, null, 'a signal that does not kill ends nothing')
      const later = await endsBy(waits[2]!, 'SIGKILL')
      t.equal(later.by, 'SIGKILL', `and one that does, later: after ${Math.round(later.ms)} ms`)
      t.equal(device.holding, queues, 'the device has heard nothing of them but INTERRUPTs')
      const { by, ms } = await endsBy(readers[0]!, 'SIGINT')
      t.equal(by, 'SIGINT', `SIGINT of one whose request the device has, which honours it: after ${Math.round(ms)} ms`)

      const rest = readers.filter(reader => reader.exitCode === null && reader.signalCode === null)
      const outputs = rest.map(async reader => Buffer.concat(await reader.stdout!.toArray()).length)
      device.letGo()
      t.strictSame(await within(10_000, Promise.all(outputs)), rest.map(() => 4096), `the other ${rest.length} read what they wanted`)
      t.equal((await readFile(join(bench.dir, 'file'))).length, 16 * 4096)
    })
    t.ok(device.rings[0]!.available >= 4, `${device.rings[0]!.available} messages on hiprio`)
    t.ok(device.rings.every(ring => ring.available === ring.used), 'each came back, once')
    t.equal(recording.requests().filter(request => request.error === 'EINTR').length, 0, 'an interrupted request was not executed')
  })
}
