/** A shared directory whose file system is slow: nobody waits but who asked for what is slow. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE, missing } from '../support/peers.js'
import { Program, run } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

const SLOW_MS = 400

t.test('lookups that are slow hold up no others', { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const path of [source, dir]) mkdirSync(path)
  const below = new Program([process.execPath, fileURLToPath(new URL('../support/serve-module.js', import.meta.url)), new URL('../support/slow-fs.js', import.meta.url).href, source])
  let bridge: Program | undefined
  try {
    await untilUsable(source, below)
    bridge = new Program([...BRIDGE, source, dir, '-f', '-o', 'cache=never'])
    await untilUsable(dir, bridge)
    // the first one cannot be known to be slow, and its successors need their threads
    for (let i = 0; i < 3; i++) await stat(join(dir, `${SLOW_MS} ms, first ${i}`))
    const slow = Array.from({ length: 3 }, (_, i) => stat(join(dir, `${SLOW_MS * 5} ms ${i}`)))
    const times: number[] = []
    for (let i = 0; i < 20; i++) {
      const start = performance.now()
      await stat(join(dir, `fast ${i}`))
      times.push(performance.now() - start)
    }
    await Promise.all(slow)
    times.sort((a, b) => a - b)
    t.ok(times[times.length >> 1]! < SLOW_MS, `half of them took less than ${Math.round(times[times.length >> 1]!)} ms`)
    t.ok(times[times.length - 1]! < SLOW_MS * 4, `none took more than ${Math.round(times[times.length - 1]!)} ms`)
    await run(['umount', dir])
    t.equal((await bridge.endsWithin(20_000))?.code, 0)
    await run(['umount', source])
    t.equal((await below.endsWithin(20_000))?.code, 0)
  } finally {
    for (const path of [dir, source]) await clearMount(path)
    for (const program of [bridge, below]) await program?.kill()
    rmSync(base, { recursive: true })
  }
})
