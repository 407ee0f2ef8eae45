/**
 * The account of lookups on real mounts: what the device gave out is what it was told to forget and
 * what it had left when DESTROY came, for every node, whatever programs and the kernel's caches did.
 */
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Bench, EmulatedTransport, withDevice, type DriverMountOptions } from '../support/driver-mount.js'
import { LoadChild } from '../support/load.js'
import { missing } from '../support/peers.js'
import { Recording } from '../support/recording.js'
import { ThreadedDevice } from '../support/threaded-device.js'

interface Case extends DriverMountOptions {
  name: string
  kind: 'emulated' | 'threaded'
  direct?: boolean
}

const CASES: Case[] = [
  { name: 'emulated, one queue', kind: 'emulated', queues: 1 },
  { name: 'emulated, four queues', kind: 'emulated', queues: 4 },
  { name: 'a device of its own, four queues of 4, slow and unordered', kind: 'threaded', queues: 4, queueSize: 4, direct: true },
]

/** Has the kernel forget inodes and directory entries that nobody uses. */
function dropCaches(): void {
  writeFileSync('/proc/sys/vm/drop_caches', '2')
}

for (const [i, { name, kind, direct = false, ...options }] of CASES.entries()) {
  t.test(`lookups given = forgotten + released by DESTROY: ${name}`, { skip: missing('emulated') }, async t => {
    using bench = new Bench()
    const recording = new Recording()
    const { handlers, directory } = bench.serve()
    const recorded = recording.wrap(handlers, directory)
    const tag = `forgets-${process.pid}-${i}`
    const transport = kind === 'emulated' ? new EmulatedTransport(tag, 4, recorded)
      : new ThreadedDevice({ tag, requestQueues: 4, handlers: recorded, features: { indirectDesc: !direct, eventIdx: true }, holdMs: 2, hiprioHoldMs: 60, seed: i })
    const load = new LoadChild(16)
    try {
      await withDevice(t, transport, bench.dir, options, async () => {
        let ended = false
        const done = load.run({ kind: 'random', dir: bench.dir, callers: 16, rounds: kind === 'emulated' ? 60 : 25, seed: i }).finally(() => { ended = true })
        done.catch(() => {})
        while (!ended) {
          await sleep(40)
          dropCaches()
        }
        await done
        // what is cached when the unmount comes is released by DESTROY alone
        await load.run({ kind: 'everything', dir: bench.dir, callers: 1, rounds: 1, seed: 1000 + i })
        await load.run({ kind: 'keep', dir: bench.dir, callers: 4, rounds: 5, seed: 2000 + i })
      })
    } finally {
      await load.end()
    }
    const account = recording.account()
    t.strictSame(account.wrong, [], `${account.given} given, ${account.forgotten} forgotten, ${account.remained} released by DESTROY`)
    t.ok(account.forgotten > 100 && account.remained >= 20, 'enough of both')
    t.match(recording.requests().at(-1), { op: 'DESTROY', running: 0 }, 'nothing was under way then, and nothing came after it')
    if (transport instanceof ThreadedDevice) {
      t.ok(transport.rings.every(ring => ring.available === ring.used), 'every chain came back')
      t.ok(transport.rings[0]!.available < recording.forgets().length, `hiprio was full: ${recording.forgets().length} FORGETs in ${transport.rings[0]!.available} messages`)
    }
  })
}
