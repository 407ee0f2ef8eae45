/**
 * The command with all that it can do: parses its arguments, calls the library, maps errors to the exit codes of mount(8).
 * Each part is loaded when it is wanted; `doctor` runs where koffi does not.
 */
import { endBy } from './exit-codes.js'
import { helperArguments } from './helper-arguments.js'
import { plainMount } from './plain-mount.js'

async function run(args: string[]): Promise<number> {
  const helper = helperArguments(process.argv[1]!, args)
  if (helper) return await (await import('./helper-command.js')).helperCommand(helper)
  const plain = plainMount(args)
  if (plain) return await (await import('./run-mount.js')).runMount(plain, plain.foreground)
  return await (await import('./command-line.js')).runCommandLine(args)
}

process.exitCode = await run(process.argv.slice(2)).catch(endBy)
