/**
 * The load process: one per peer, row and repetition, so that no call on a mount is ever made in a
 * process that serves one. Takes a Task as JSON, prints a Measure as JSON.
 */
import { costRows } from './load-costs.js'
import { latencyRows } from './load-ops.js'
import { streamRows } from './load-stream.js'
import type { Task } from './load-task.js'
import { threadRows } from './load-threads.js'
import { treeRows } from './load-trees.js'

const task = JSON.parse(process.argv[2]!) as Task
const run = { ...latencyRows, ...threadRows, ...streamRows, ...treeRows, ...costRows }[task.row]
if (!run) throw new Error(`no load for row ${task.row}`)
try {
  process.stdout.write(JSON.stringify(await run(task)))
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
}
