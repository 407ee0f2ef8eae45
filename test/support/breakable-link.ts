/**
 * A transport that breaks when a test says so, and as it says: runs a command and passes its standard
 * input and output on, as ssh does with a server. The command is in a session of its own: it outlives
 * the transport, as a server's does.
 *
 *     node dist/test/support/breakable-link.js ORDERS COMMAND [ARGUMENT...]
 *
 * ORDERS is a file of lines, each for one link, the first for the next one; taken out when it is read:
 *
 *     up N       breaks after N bytes to the far end
 *     down N     breaks after N bytes from it
 *     refuse     ends at once
 *     (nothing)  breaks never
 *
 * The command's number is written to ORDERS.pid.
 */
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'

const [orders, command, ...args] = process.argv.slice(2) as [string, string, ...string[]]

function nextOrder(): [what: string | undefined, bytes: number] {
  const [line, ...rest] = readFileSync(orders, 'latin1').split('\n')
  // what is for ever stays
  if (line !== 'refuse') writeFileSync(orders, rest.join('\n'))
  const [what, bytes] = line!.split(' ')
  return [what, Number(bytes)]
}

const [what, limit] = nextOrder()
if (what === 'refuse') {
  console.error('refused')
  process.exit(1)
}
const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
writeFileSync(`${orders}.pid`, String(child.pid))
child.once('exit', () => process.exit(1))

function pass(from: Readable, to: Writable, most: number): void {
  let left = most
  from.on('data', (data: Buffer) => {
    const part = data.subarray(0, left)
    left -= part.length
    const more = to.write(part, left > 0 ? undefined : () => process.exit(1))
    if (more) return
    from.pause()
    to.once('drain', () => from.resume())
  })
  from.once('end', () => to.end())
  to.on('error', () => {})
}

pass(process.stdin, child.stdin, what === 'up' ? limit : Infinity)
pass(child.stdout, process.stdout, what === 'down' ? limit : Infinity)
