/** The environment of a process of ours: Node's certificates are not parsed at its start, and are there for what it starts. */
import t from 'tap'
import { restoreEnvironment, startEnvironment } from '../../lib/sys/node-environment.js'

t.test('certificates go by another name until the process runs', async t => {
  const before = process.env['NODE_EXTRA_CA_CERTS']
  t.teardown(() => {
    if (before === undefined) delete process.env['NODE_EXTRA_CA_CERTS']
    else process.env['NODE_EXTRA_CA_CERTS'] = before
  })
  process.env['NODE_EXTRA_CA_CERTS'] = '/etc/ca.pem'
  const wanted = { ...process.env }
  const env = startEnvironment()
  t.equal(env['NODE_EXTRA_CA_CERTS'], undefined)
  for (const name of Object.keys(process.env)) delete process.env[name]
  Object.assign(process.env, env)
  restoreEnvironment()
  t.strictSame({ ...process.env }, wanted, 'all as it was')

  delete process.env['NODE_EXTRA_CA_CERTS']
  t.strictSame(startEnvironment(), { ...process.env }, 'nothing is added')
})
