import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { TraceFile } from '../../lib/driver/request-trace.js'

t.test('one JSON record a line', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'trace-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'trace')
  const trace = new TraceFile(path)
  for (let i = 0; i < 5000; i++) trace.write({ i, text: 'ä'.repeat(20) })
  trace.close()
  const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
  t.equal(lines.length, 5000)
  t.same(lines.map(line => (JSON.parse(line) as { i: number }).i), Array.from({ length: 5000 }, (_, i) => i))
})

t.test('a full disk is no exception, and told once', async t => {
  const warnings: string[] = []
  const listener = (warning: Error): void => { warnings.push(warning.message) }
  process.on('warning', listener)
  t.teardown(() => { process.off('warning', listener) })
  const trace = new TraceFile('/dev/full')
  for (let i = 0; i < 3; i++) {
    trace.write({ i })
    trace.flush()
  }
  trace.write({})
  trace.close()
  await new Promise(resolve => setImmediate(resolve))
  t.equal(warnings.length, 1)
  t.match(warnings[0], /^trace \/dev\/full: ENOSPC/)
})
