/** A hundred mounts and unmounts in one process leave nothing: no descriptor, thread, mapping or process. */
import t from 'tap'
import { runLibraryScript } from '../support/library-script.js'
import type { Held } from '../support/mount-cycles.js'
import { missing, PEERS } from '../support/peers.js'

const CYCLES = 100
/** The engine maps and unmaps its heap as it likes; one mapping lost per mount would be a hundred. */
const MAPS_SLACK = 95
/** What koffi keeps of a thread that has ended: a guard page, a stack, a heap (fewer where the kernel joins neighbours). */
const KOFFI_MAPS_PER_THREAD = 3
/** A queue worker, and a thread of the pool; no mount of these is busy enough for a second one of those. */
const THREADS_PER_MOUNT = 2

for (const peer of PEERS) {
  t.test(`${peer}: ${CYCLES} mounts and unmounts in one process`, { skip: missing(peer), timeout: 290_000 }, async t => {
    const printed = await runLibraryScript(t, { script: 'mount-cycles', peer, nodeOptions: ['--expose-gc'], args: [String(CYCLES)], timeoutMs: 280_000 })
    const { before, after, ms } = JSON.parse(printed) as { before: Held, after: Held, ms: number }
    t.comment(`${(ms / CYCLES).toFixed(1)} ms per mount and unmount; mappings ${before.maps} → ${after.maps}; stacks of koffi ${before.koffiStacks} → ${after.koffiStacks}`)
    t.strictSame(after.fds, before.fds, 'the same descriptors')
    t.equal(after.threads, before.threads, 'as many threads')
    t.equal(after.children, 0, 'no process')
    t.equal(after.deviceMaps, 0, 'no memory of a device')
    t.ok(after.koffiStacks <= before.koffiStacks + THREADS_PER_MOUNT * CYCLES, 'what koffi keeps is that of the threads of the mounts')
    const koffiMaps = KOFFI_MAPS_PER_THREAD * (after.koffiStacks - before.koffiStacks)
    t.ok(after.maps <= before.maps + koffiMaps + MAPS_SLACK, `mappings ${before.maps} → ${after.maps}, up to ${koffiMaps} of them koffi's`)
  })
}
