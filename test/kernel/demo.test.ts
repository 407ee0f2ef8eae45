/** `npm run demo` shows what README says that it shows. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { missing } from '../support/peers.js'
import { runToEnd } from '../support/program.js'
import { packageRoot } from '../support/vhost-user-session.js'

t.test('npm run demo', { skip: missing('emulated') }, async t => {
  const ran = await runToEnd(['bash', join(packageRoot(), 'test/support/demo.sh')], { cwd: packageRoot(), timeoutMs: 120_000 })
  t.match(ran, { exit: { code: 0 } }, ran.stderr)
  const shown = /^```\n(demo: npm ci\n.*?)^```$/ms.exec(readFileSync(join(packageRoot(), 'README.md'), 'utf8'))![1]!
  // installing is shown where it is needed; numbers of a run are its own
  const expected = shown.split('\n').filter(line => line.trim() !== '' && line.trim() !== '…' && !/npm ci|added \d+|"us":|demo: virtiofsd/.test(line))
  t.ok(expected.length > 20)
  const lines = new Set(ran.stdout.split('\n'))
  for (const line of expected) t.ok(lines.has(line), line)
})
