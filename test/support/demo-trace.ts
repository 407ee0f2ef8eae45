/**
 * Shows a trace of `-o trace_json`, for the demo:
 *
 *     node dist/test/support/demo-trace.js FILE
 *
 * The first requests as they are in the file, how many of each kind there were, and the events from
 * the unmount to the end.
 */
import { readFileSync } from 'node:fs'
import type { TraceRecord } from './mounts.js'

const FIRST = 4

const lines = readFileSync(process.argv[2]!, 'utf8').trim().split('\n')
const records = lines.map(line => JSON.parse(line) as TraceRecord)
const requests = lines.filter((_, i) => records[i]!.op !== undefined)
const counts = new Map<string, number>()
for (const { op } of records) if (op !== undefined) counts.set(op, (counts.get(op) ?? 0) + 1)

for (const line of requests.slice(0, FIRST)) console.log(line)
console.log(`… ${requests.length} requests: ${[...counts].map(([op, count]) => `${op} ${count}`).join(', ')}`)
const unmounted = records.findIndex(({ event }) => event === 'unmounted')
for (const [i, line] of lines.entries()) if (i >= unmounted && records[i]!.event !== undefined) console.log(line)
