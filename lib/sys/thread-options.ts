/** How threads of ours are started. */

/** What a thread has to be given of the arguments when it does not inherit all: hooks of a loader. Each with its value. */
const HOOKS = new Set(['--import', '--require', '-r', '--loader', '--experimental-loader', '--conditions', '-C'])

/**
 * Node's own arguments for a thread. It inherits those of this process, the engine's among them, which cannot be
 * given to one; but not with `node --input-type=module -e …`, which only a program on the command line may have.
 *
 * @returns undefined to inherit
 */
export function threadArguments(execArgv: readonly string[] = process.execArgv): string[] | undefined {
  if (!execArgv.some(argument => argument.startsWith('--input-type'))) return undefined
  return execArgv.filter((argument, i) => HOOKS.has(argument.split('=', 1)[0]!) || HOOKS.has(execArgv[i - 1]!))
}
