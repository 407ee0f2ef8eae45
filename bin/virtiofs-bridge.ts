#!/usr/bin/env node
/** The command: parses its arguments, calls the library, maps errors to the exit codes of mount(8). */
import { errorLine } from '../lib/errors.js'
import { exitCodeOf } from './exit-codes.js'
import { helperArguments } from './helper-arguments.js'
import { parsePlainMount, runMount } from './run-mount.js'

const args = process.argv.slice(2)
try {
  const helper = helperArguments(process.argv[1]!, args)
  const plain = helper ? undefined : parsePlainMount(args)
  if (helper) process.exitCode = await (await import('./helper-command.js')).helperCommand(helper)
  else if (plain) process.exitCode = await runMount(plain.request, plain.foreground)
  else await (await import('./command-line.js')).runCommandLine(args)
} catch (error) {
  console.error(`virtiofs-bridge: ${errorLine(error)}`)
  process.exitCode = exitCodeOf(error)
}
