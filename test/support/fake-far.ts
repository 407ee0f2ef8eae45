/**
 * A far end that does something wrong, for tests: greets well, then answers the first request as it
 * is told to.
 *
 *     node dist/test/support/fake-far.js HOW
 */
import { FuseInHeader, FuseOutHeader } from '../../lib/fuse/abi.js'
import { encodeHello, RELAY_VERSION, RelayHello } from '../../lib/relay/hello.js'

const how = process.argv[2]!
const limits = { requests: 8, large: 8 }
/** A reply, of zeroes behind its header. */
function reply(unique: bigint, { length = 16, bytes, error = 0 }: { length?: number, bytes?: number, error?: number } = {}): Buffer {
  const message = Buffer.alloc(Math.max(bytes ?? length, FuseOutHeader.SIZE))
  message.writeUInt32LE(length, FuseOutHeader.len)
  message.writeInt32LE(error, FuseOutHeader.error)
  message.writeBigUInt64LE(unique, FuseOutHeader.unique)
  return message.subarray(0, bytes ?? length)
}

const answers: Record<string, (unique: bigint) => Buffer> = {
  garbage: () => Buffer.from('bash: something went wrong here\n'.repeat(3)),
  'cut in a header': unique => reply(unique).subarray(0, 9),
  'cut in a message': unique => reply(unique, { length: 80, bytes: 40 }),
  'an unknown unique': unique => reply(unique + 2n),
  'the unique of nobody': () => reply(0n),
  'too long': unique => reply(unique, { length: 4096 }),
  'too short': unique => reply(unique, { length: 15, bytes: 16 }),
  'a positive error': unique => reply(unique, { error: 5 }),
  'an error out of range': unique => reply(unique, { error: -512 }),
  'an error with data': unique => reply(unique, { length: 80, error: -5 }),
  'twice the same': unique => Buffer.concat([reply(unique, { length: 80 }), reply(unique)]),
  nothing: () => Buffer.alloc(0),
}

const hellos: Record<string, () => Uint8Array> = {
  'another version': () => edited(RelayHello.version, RELAY_VERSION + 1),
  'no requests': () => edited(RelayHello.requests, 0),
  'no large requests': () => edited(RelayHello.large_requests, 1),
  'another limit of messages': () => edited(RelayHello.max_message, 1 << 30),
  'a flag': () => edited(RelayHello.flags, 1),
  'a text without end': () => edited(RelayHello.text_bytes, 0xffffffff),
  'no JSON': () => Buffer.concat([edited(RelayHello.text_bytes, 5).subarray(0, RelayHello.SIZE), Buffer.from('hello')]),
  'half a hello': () => edited(RelayHello.flags, 0).subarray(0, 20),
  'an error': () => encodeHello({ limits, text: { error: 'no\u001b[31m such\nthing' } }),
  'a tag that is a number': () => encodeHello({ limits, text: { tag: 5 } }),
}

function edited(at: number, value: number): Buffer {
  const hello = Buffer.from(encodeHello({ limits, text: {} }))
  hello.writeUInt32LE(value, at)
  return hello
}

const say = (bytes: Uint8Array, then = (): void => {}): void => { process.stdout.write(bytes, then) }

if (hellos[how]) {
  say(hellos[how](), () => process.exit())
} else {
  say(encodeHello({ limits, text: { tag: 'fake' } }))
  let input = Buffer.alloc(0)
  process.stdin.on('data', (data: Buffer) => {
    input = Buffer.concat([input, data])
    if (input.length < RelayHello.SIZE) return
    const request = input.subarray(RelayHello.SIZE + input.readUInt32LE(RelayHello.text_bytes))
    if (request.length < FuseInHeader.SIZE) return
    process.stdin.pause()
    say(answers[how]!(request.readBigUInt64LE(FuseInHeader.unique)), () => process.exit())
  })
}
