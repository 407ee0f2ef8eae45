/** A bridge that may have few descriptors. */
import { closeSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { untilUsable } from '../support/mounts.js'
import { BRIDGE, missing } from '../support/peers.js'
import { Program, run } from '../support/program.js'
import { clearMount } from '../support/stuck.js'

const LIMIT = 64
const FILES = 1200

t.test(`${LIMIT} descriptors`, { skip: missing('emulated') }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, dir] = [join(base, 'src'), join(base, 'mnt')]
  for (const path of [source, dir]) mkdirSync(path)
  for (let d = 0; d < 30; d++) {
    mkdirSync(join(source, `d${d}`))
    for (let f = 0; f < FILES / 30; f++) writeFileSync(join(source, `d${d}`, `f${f}`), `${d} ${f}\n`)
  }
  const bridge = new Program(['bash', '-c', `ulimit -n ${LIMIT}; exec "$@"`, 'bash', ...BRIDGE, source, dir, '-f', '-o', 'cache=never'])
  try {
    await untilUsable(dir, bridge)
    t.equal((await run(['find', dir, '-type', 'f'])).trim().split('\n').length, FILES, 'every file is found')
    await run(['cp', '-r', join(dir, 'd1'), join(dir, 'copy')])
    await run(['diff', '-r', join(dir, 'd1'), join(dir, 'copy')])
    t.pass('a directory is copied')
    const open: number[] = []
    let code: string | undefined
    try {
      for (let i = 0; i < LIMIT * 2; i++) open.push(openSync(join(dir, 'd2', `f${i % 40}`), 'r+'))
    } catch (error) {
      code = (error as NodeJS.ErrnoException).code
    }
    t.equal(code, 'EMFILE', `said as it is, after ${open.length} files`)
    t.ok(open.length >= 4)
    // what needs a thread that cannot be started is done all the same
    for (const fd of open) fsyncSync(fd)
    for (const fd of open) closeSync(fd)
    t.equal(readFileSync(join(dir, 'd3', 'f7'), 'utf8'), '3 7\n', 'and goes on')
    await run(['rm', '-r', join(dir, 'copy')])
    await run(['umount', dir])
    t.equal((await bridge.endsWithin(20_000))?.code, 0)
  } finally {
    await clearMount(dir)
    await bridge.kill()
    t.comment(bridge.stderr)
    rmSync(base, { recursive: true })
  }
})
