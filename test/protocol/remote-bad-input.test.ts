/** Either end of a relay, with something else at the other: one clear line, and an exit code. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { FuseInHeader, FuseInitIn, FuseOutHeader } from '../../lib/fuse/abi.js'
import { Op } from '../../lib/fuse/opcodes.js'
import { encodeHello, MAX_MESSAGE, RelayHello } from '../../lib/relay/hello.js'
import { probe } from '../../lib/driver/probe.js'
import { errorLine } from '../../lib/errors.js'
import { exitCodeOf } from '../../bin/exit-codes.js'
import { probeDevice } from '../../lib/mount/device.js'
import type { MountOptions } from '../../lib/mount/options.js'
import { parseSource } from '../../lib/mount/source.js'
import { BRIDGE, relaySource } from '../support/peers.js'

const FAKE = `exec:env -u NODE_OPTIONS '${process.execPath}' '${fileURLToPath(new URL('../support/fake-far.js', import.meta.url))}'`
const NEAR = { requests: 1, large: 2 }

interface Ending { code: number | null, stdout: Buffer, stderr: string }

/** The command. */
async function bridge(args: readonly string[], input?: Uint8Array): Promise<Ending> {
  const { NODE_OPTIONS: _, ...env } = process.env
  const child = spawn(BRIDGE[0]!, [...BRIDGE.slice(1), ...args], { env, stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe'] })
  const said: Buffer[] = []
  let stderr = ''
  child.stdout!.on('data', (data: Buffer) => said.push(data))
  child.stderr!.on('data', data => { stderr += data })
  child.stdin?.on('error', () => {}).end(input)
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000)
  const code = await new Promise<number | null>(resolve => child.once('close', resolve))
  clearTimeout(timer)
  return { code, stdout: Buffer.concat(said), stderr }
}

/** What the command does, in this process: connects, sends INIT and DESTROY. */
async function probed(source: string, options: MountOptions = {}): Promise<Ending> {
  try {
    await probe(await probeDevice(parseSource(source, options), options), 10_000)
    return { code: 0, stdout: Buffer.alloc(0), stderr: '' }
  } catch (error) {
    return { code: exitCodeOf(error), stdout: Buffer.alloc(0), stderr: errorLine(error) }
  }
}

function fails(t: Test, what: string, { code, stderr }: Ending, expectedCode: number, line: RegExp): void {
  t.equal(stderr.trim().split('\n').length, 1, `${what}: one line`)
  t.match(stderr, line, what)
  t.notMatch(stderr, /[\0-\x09\x0b-\x1f]/, 'nothing that a terminal would act on')
  t.equal(code, expectedCode, `${what}: exit code`)
}

t.test('a far end that is none', async t => {
  const magic = /hello of the far end: magic is "(.*)", expected that of virtiofs-bridge/
  fails(t, 'a banner', await probed('exec:sh -c "echo Welcome to Debian; cat >/dev/null"'), 32, /magic is "Welcome to Debian"/)
  fails(t, 'the same by the command', await bridge(['probe', 'exec:echo Welcome']), 32, /^virtiofs-bridge: hello of the far end: magic is "Welcome"/)
  fails(t, 'a prompt', await probed('exec:sh -c "printf \'$ \'; sleep 9"'), 32, magic)
  fails(t, 'escape sequences', await probed('exec:sh -c "printf \'\\\\033[2J\\\\007hi\\\\n\'; cat >/dev/null"'), 32, /magic is "\[2J hi"/)
  fails(t, 'what it is told', await probed('exec:cat'), 32, /hello of the far end: large_requests|hello of the near end|far end/)
  fails(t, 'silence', await probed('exec:sleep 60', { mountTimeout: 0.5 }), 32, /sleep: no virtiofs-bridge answers within 0.5 s/)
  fails(t, 'an end', await probed('exec:false'), 32, /^false ended with exit code 1$/m)
  fails(t, 'last words', await probed('exec:sh -c "echo first >&2; echo \'no way\' >&2; exit 7"'), 32, /^sh ended with exit code 7: no way$/m)
  fails(t, 'a signal', await probed('exec:sh -c "kill -9 $$"'), 32, /^sh ended by SIGKILL$/m)
  fails(t, 'no program', await probed('exec:/no/such/program x'), 32, /command \/no\/such\/program: no such program/)
  fails(t, 'no command', await probed('exec:'), 1, /the command is empty/)
  fails(t, 'a host that is an option', await probed('ssh://-oProxyCommand=touch%20x/p'), 1, /a host that begins with - is refused/)
})

for (const [how, line] of Object.entries({
  'another version': /hello of the far end: version is 3, expected 2 \(both ends need the same version/,
  'no requests': /requests is 0/, 'no large requests': /large_requests is 1/, 'another limit of messages': /max_message is 1073741824/, 'a flag': /flags is 1/,
  'a text without end': /text_bytes is 4294967295/, 'no JSON': /text is "hello", expected an object/, 'half a hello': /node ended|env ended|stream ended within the hello/, 'an error': /far end: no \[31m such thing$/m,
  'a tag that is a number': /tag is 5, expected a string/,
  garbage: /fuse_out_header.unique is/, 'cut in a header': /cut in the middle of a message \(9 bytes\)/, 'cut in a message': /cut in the middle of a message \(40 of 80 bytes\)/,
  'an unknown unique': /fuse_out_header.unique is .*, expected that of a request in flight/, 'the unique of nobody': /fuse_out_header.len is 16, expected 136 with unique 0/,
  'too long': /fuse_out_header.len is 4096, expected 16 to 80/, 'too short': /fuse_out_header.len is 15/, 'a positive error': /fuse_out_header.error is 5/,
  'an error out of range': /fuse_out_header.error is -512/, 'an error with data': /fuse_out_header.len is 80, expected 16 with error -5/,
  'twice the same': /fuse_out_header.unique is|refused|speaks/, nothing: /the far end closed its stream.* before it answered FUSE_INIT/,
})) {
  void t.test(`a far end with ${how}`, async t => fails(t, how, await probed(`${FAKE} '${how}'`), 32, line))
}

t.test('the far end, with something else before it', async t => {
  const dir = mkdtempSync(join(tmpdir(), 'vfb-far-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const relay = (input: Uint8Array, ...args: string[]): Promise<Ending> => bridge(['relay', dir, ...args], input)
  const hello = (options: unknown = []): Buffer => Buffer.from(encodeHello({ limits: NEAR, text: { options } }))
  const told = ({ stdout }: Ending): Record<string, unknown> => JSON.parse(stdout.subarray(RelayHello.SIZE, RelayHello.SIZE + stdout.readUInt32LE(RelayHello.text_bytes)).toString()) as Record<string, unknown>

  fails(t, 'text', await relay(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\nand more')), 32, /hello of the near end: magic is "GET \/ HTTP\/1.1 Host: x and more"/)
  fails(t, 'nothing', await relay(Buffer.alloc(0)), 32, /the stream ended before the near end said anything/)
  fails(t, 'nothing, and no such source', await bridge(['relay', join(dir, 'nowhere')], Buffer.alloc(0)), 32, /^virtiofs-bridge: source .*nowhere: no such directory or socket/)
  fails(t, 'nothing, and a source that is no device', await bridge(['relay', 'ssh://x/y'], Buffer.alloc(0)), 1, /a relay of a relay is not possible/)
  fails(t, 'half a hello', await relay(hello().subarray(0, 30)), 32, /the stream ended within the hello of the near end/)
  const version = hello()
  version.writeUInt32LE(9, RelayHello.version)
  fails(t, 'another version', await relay(version), 32, /hello of the near end: version is 9, expected 2/)
  for (const [what, options, error] of [
    ['a program to run', ['virtiofsd=/bin/sh'], 'option virtiofsd is not for the near end to choose'],
    ['less than the far end asks for', ['translate_uid=map:0:0:1'], 'option translate_uid is set otherwise at the far end'],
    ['what does not exist', ['nonsense'], 'unknown option "nonsense"'],
  ] as const) {
    const ending = await relay(hello(options), '-o', 'translate_uid=map:0:1:1,ro')
    t.match(told(ending), { error }, what)
    t.strictSame([ending.code, ending.stderr], [1, `virtiofs-bridge: ${error}\n`], 'and said here')
  }
  t.match(told(await relay(hello(5))), { error: 'hello of the near end: options is 5, expected a list of strings' }, 'options that are none')
  const greeting = (more: object): Buffer => Buffer.from(encodeHello({ limits: NEAR, text: { options: [], ...more } }))
  const session = '0123456789abcdef'.repeat(2)
  for (const [what, more, error] of [
    ['a session that is no secret', { session: 'x' }, /session is "x", expected 32 hexadecimal digits/],
    ['a far end before that is none', { session, before: { pid: 1 } }, /process is .*, expected the identity of a process/],
    ['one behind a door that is none of ours', { session, before: { boot: '', pidNamespace: '', timeNamespace: '', start: '1', pid: 1, door: '/tmp/.X11-unix/X0' } }, /expected the identity of a process/],
  ] as const) t.match(told(await relay(greeting(more))), { error }, what)
  t.match(told(await relay(greeting({ session }))), { process: { pid: Number, door: /^virtiofs-bridge-relay-/ }, nowMs: Number })
  const missing = await bridge(['relay', join(dir, 'nowhere')], hello())
  t.match(told(missing), { error: /no such directory/, code: 'ENOENT' })
  fails(t, 'no such source', missing, 32, /^virtiofs-bridge: source .*nowhere: no such directory or socket/)
  fails(t, 'no such source, at the near end', await probed(relaySource('nowhere')), 32, /^far end: source nowhere: no such directory or socket/)
  t.strictSame((({ code, stderr }) => [code, stderr])(await relay(hello())), [0, ''], 'a near end that wants no more is none of its business')

  const message = (opcode: number, { length = 40, unique = 4n, bytes, args = [] }: { length?: number, unique?: bigint, bytes?: number, args?: number[] } = {}): Buffer => {
    const request = Buffer.alloc(bytes ?? length)
    request.writeUInt32LE(length, FuseInHeader.len)
    request.writeUInt32LE(opcode, FuseInHeader.opcode)
    request.writeBigUInt64LE(unique, FuseInHeader.unique)
    request.writeBigUInt64LE(1n, FuseInHeader.nodeid)
    args.forEach((word, i) => request.writeUInt32LE(word, FuseInHeader.SIZE + 4 * i))
    return request
  }
  const init = message(Op.INIT, { length: FuseInHeader.SIZE + FuseInitIn.SIZE, unique: 2n, args: [7, 45, 131072, 0] })
  const after = (...messages: Buffer[]): Promise<Ending> => relay(Buffer.concat([hello(), init, ...messages]))
  const wrong: [what: string, messages: Buffer, line: RegExp][] = [
    ['shorter than a header', message(Op.GETATTR, { length: 39, bytes: 56 }), /fuse_in_header.len is 39, expected 40 to/],
    ['longer than the limit', message(Op.WRITE, { length: MAX_MESSAGE + 1, bytes: 80 }), new RegExp(`fuse_in_header.len is ${MAX_MESSAGE + 1}`)],
    ['a unique of the driver\'s own', message(Op.STATFS, { unique: 0x20000000n << 32n }), /fuse_in_header.unique is 0x20000000 in its high word/],
    ['FORGETs that do not come', message(Op.BATCH_FORGET, { length: 64, args: [2] }), /fuse_in_header.len is 64, expected room for 2 FORGETs/],
    ['a FORGET without its count', message(Op.FORGET), /expected room for a FORGET/],
    ['cut in a header', message(Op.STATFS).subarray(0, 20), /the near end's stream was cut in the middle of a message \(20 bytes\)/],
    ['cut in a message', message(Op.WRITE, { length: 80 + 4096, bytes: 1000 }), /cut in the middle of a message \(1000 of 4176 bytes\)/],
  ]
  const endings = await Promise.all(wrong.map(([, messages]) => after(messages)))
  wrong.forEach(([what, , line], i) => fails(t, what, endings[i]!, 32, line))
  const good = await after(message(Op.STATFS, { unique: 4n }), message(Op.DESTROY, { unique: 6n }), Buffer.from('what comes later is nobody\'s'))
  t.strictSame([good.code, good.stderr], [0, ''], 'a whole session')
  const replies: [bigint, number][] = []
  for (let at = RelayHello.SIZE + good.stdout.readUInt32LE(RelayHello.text_bytes); at < good.stdout.length; at += good.stdout.readUInt32LE(at)) {
    replies.push([good.stdout.readBigUInt64LE(at + FuseOutHeader.unique), good.stdout.readInt32LE(at + FuseOutHeader.error)])
  }
  t.strictSame(replies, [[2n, 0], [4n, 0], [6n, 0]], 'each answered, DESTROY last')
})
