/** A mount over ssh, to an sshd of the test's own on this host. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { runChecks } from '../support/posix-run.js'
import { mountDirectory } from '../support/posix-mount.js'
import { BRIDGE, missing } from '../support/peers.js'
import { noSshd, Sshd } from '../support/sshd.js'
import { runToEnd } from '../support/program.js'
import { relayExceptions } from '../posix/mounts.js'
import { table } from '../posix/table.js'

const skip = missing('relay') || noSshd()

void t.test('over ssh', { skip }, async t => {
  const base = mkdtempSync(join(tmpdir(), 'vfb-ssh-'))
  t.teardown(() => rmSync(base, { recursive: true, force: true }))
  const sshd = await Sshd.start(join(base, 'ssh'))
  t.teardown(() => sshd.end())
  const rsh = `rsh=${sshd.ssh.join(' ')}`
  const command = `relay_command=${BRIDGE.join(' ')}`

  await t.test('the posix checks', async t => {
    const tree = join(base, 'it\'s a "tree" of $HOME')
    const mount = await mountDirectory('/dev/shm', [rsh, command, 'xattr', 'posix_acl'].join(','), backing => {
      symlinkSync(backing, tree)
      return sshd.url(encodeURI(tree))
    })
    const failed: string[] = []
    let count = 0
    try {
      const { backing, mountpoint } = mount
      writeFileSync(join(mountpoint, 'large'), Buffer.alloc(3_000_000, 'large'))
      t.ok(readFileSync(join(mountpoint, 'large')).equals(Buffer.alloc(3_000_000, 'large')))
      t.equal(statSync(join(backing, 'large')).size, 3_000_000)
      await runChecks(mountpoint, { backing, stuck: mount.abort, result: ({ name, ok, error }) => {
        count++
        if (!ok && !Object.keys(relayExceptions).some(excepted => name.startsWith(excepted))) failed.push(`${name}: ${error}`)
      } })
    } finally {
      await mount.end()
    }
    t.strictSame(failed, [], 'all hold')
    t.ok(count >= table.length)
  })

  await t.test('what goes wrong', async t => {
    const dir = join(base, 'mnt')
    mkdirSync(dir)
    const fails = async (source: string, options: string[], code: number, line: RegExp): Promise<void> => {
      const { exit, stderr } = await runToEnd([...BRIDGE, source, dir, '-f', '-o', options.join(',')])
      t.match(stderr, line)
      t.equal(stderr.trim().split('\n').length, 1, 'one line')
      t.equal(exit?.code, code)
    }
    await fails(sshd.url('/nowhere'), [rsh, command], 32, /^virtiofs-bridge: far end: source \/nowhere: no such directory/)
    await fails(sshd.url('/'), [rsh, 'relay_command=no-such-command'], 32, /^virtiofs-bridge: ssh ended with exit code 127: .*no-such-command.*not found/)
    await fails('ssh://nobody-here@127.0.0.1:' + `${sshd.port}/`, [rsh, command], 32, /^virtiofs-bridge: ssh ended with exit code 255: .*Permission denied/)
    await fails('ssh://127.0.0.1:1/', [rsh, command], 32, /^virtiofs-bridge: ssh ended with exit code 255: .*Connection refused/)
  })
})
