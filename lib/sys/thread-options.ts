/** How threads of ours are started. */

/**
 * Node's own arguments for a thread: those of this process, so that hooks of a loader are there too,
 * but for those that only a program on the command line may have (`node --input-type=module -e …`).
 */
export function threadArguments(execArgv: readonly string[] = process.execArgv): string[] {
  return execArgv.filter((argument, i) => !/^--input-type(=|$)/.test(argument) && execArgv[i - 1] !== '--input-type')
}
