/** What a SOURCE is: directory, socket, tag. */
import { mkdirSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { once } from 'node:events'
import t from 'tap'
import { parseSource } from '../../lib/mount/source.js'

t.test('directories', async t => {
  const dir = t.testdir({ shared: {}, 'two words': {}, file: 'x' })
  t.strictSame(parseSource(join(dir, 'shared'), {}), { kind: 'directory', path: join(dir, 'shared'), tag: 'shared' })
  t.match(parseSource(join(dir, 'shared') + '/', {}), { path: join(dir, 'shared'), tag: 'shared' })
  t.match(parseSource(join(dir, 'shared'), { tag: 'mine' }), { tag: 'mine' })
  t.match(parseSource('.', {}), { kind: 'directory', path: resolve('.') })
  t.match(parseSource('/', {}), { kind: 'directory', path: '/', tag: 'root' })
  t.match(parseSource(join(dir, 'two words'), {}), { tag: 'two_words' })
  t.throws(() => parseSource(join(dir, 'file'), {}), { name: 'UsageError', code: 'ENOTDIR', message: /neither a directory nor a socket/ })
  t.throws(() => parseSource(join(dir, 'nothing'), {}), { code: 'ENOENT', message: /no such directory or socket/ })
  t.throws(() => parseSource(join(dir, 'file', 'below'), {}), { code: 'ENOTDIR', message: `source ${join(dir, 'file', 'below')}: not a directory (ENOTDIR)` })
  t.throws(() => parseSource('me@server:/srv/tree', {}), { code: 'ENOENT', message: 'source me@server:/srv/tree: no such directory or socket (another host is ssh://me@server/srv/tree)' }, 'as sshfs has it')
  t.throws(() => parseSource('server:', {}), { message: /another host is ssh:\/\/server\/PATH/ })
  t.throws(() => parseSource('sftp://server/x', {}), { message: /a tag needs -o socket=PATH/ })
  t.throws(() => parseSource('', {}), { name: 'UsageError', code: 'EINVAL' })
  symlinkSync('shared', join(dir, 'link'))
  t.match(parseSource(join(dir, 'link'), {}), { kind: 'directory', tag: 'link' })
})

t.test('options that would do nothing', async t => {
  const dir = t.testdir({})
  for (const source of [dir, 'unix:/run/s']) {
    t.throws(() => parseSource(source, { rsh: 'ssh -v' }), { code: 'EINVAL', message: 'option rsh needs a source ssh://' })
    t.throws(() => parseSource(source, { relayCommand: 'sudo virtiofs-bridge' }), { message: 'option relay_command needs a source ssh://' })
    t.throws(() => parseSource(source, { virtiofsd: '/x' }), { message: 'option virtiofsd needs backend=virtiofsd' })
    t.throws(() => parseSource(source, { sandbox: 'none' }), { message: 'option sandbox needs backend=virtiofsd' })
  }
  t.match(parseSource(dir, { backend: 'virtiofsd', virtiofsd: '/x', sandbox: 'none' }), { kind: 'directory' })
  t.match(parseSource('ssh://server/x', { rsh: 'ssh -v', relayCommand: 'x' }), { kind: 'remote' })
})

t.test('sockets', async t => {
  const dir = t.testdir({})
  const path = join(dir, 'fs.sock')
  const server = createServer().listen(path)
  t.teardown(() => server.close())
  await once(server, 'listening')
  t.strictSame(parseSource(path, {}), { kind: 'socket', path, tag: 'fs.sock' })
  t.strictSame(parseSource(`unix:${path}`, {}), { kind: 'socket', path, tag: 'fs.sock' })
  t.strictSame(parseSource('unix:/not/there', { tag: 'x' }), { kind: 'socket', path: '/not/there', tag: 'x' }, 'whether it is there is found out by connecting')
  t.strictSame(parseSource('unix:rel.sock', {}), { kind: 'socket', path: resolve('rel.sock'), tag: 'rel.sock' })
})

t.test('a tag with a socket beside it', async t => {
  t.strictSame(parseSource('myfs', { socket: '/run/s' }), { kind: 'socket', path: '/run/s', tag: 'myfs' })
  t.strictSame(parseSource('myfs', { socket: '/run/s', tag: 'other' }), { kind: 'socket', path: '/run/s', tag: 'other' })
  t.throws(() => parseSource('myfs', {}), { code: 'ENOENT', message: /a tag needs -o socket=PATH/ })
})

t.test('tags: 1 to 36 bytes, no newline', async t => {
  const socket = '/run/s'
  t.match(parseSource('x'.repeat(36), { socket }), { tag: 'x'.repeat(36) })
  t.throws(() => parseSource('x'.repeat(37), { socket }), { name: 'UsageError', message: /37 bytes, at most 36/ })
  t.match(parseSource('ä'.repeat(18), { socket }), { tag: 'ä'.repeat(18) })
  t.throws(() => parseSource('ä'.repeat(19), { socket }), { message: /38 bytes/ }, 'bytes count, not characters')
  t.throws(() => parseSource('a\nb', { socket }), { message: /newline/ })
  t.throws(() => parseSource('/', { tag: '' }), { message: /the tag is empty/ })
  t.throws(() => parseSource('/', { tag: 'x'.repeat(37) }), { message: /at most 36/ })
})

t.test('a default tag is cut to 36 bytes, between characters', async t => {
  const dir = t.testdir({})
  for (const [name, tag] of [['y'.repeat(50), 'y'.repeat(36)], ['€'.repeat(13), '€'.repeat(12)], ['a' + '😀'.repeat(10), 'a' + '😀'.repeat(8)]] as const) {
    mkdirSync(join(dir, name))
    t.equal(parseSource(join(dir, name), {}).tag, tag)
  }
})
