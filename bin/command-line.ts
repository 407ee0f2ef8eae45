/** The grammar of the command, from its table. */
import { readFileSync } from 'node:fs'
import yargs, { type Argv } from 'yargs'
import { UsageError } from '../lib/errors.js'
import { optionTable } from '../lib/mount/options.js'
import { ExitCode } from './exit-codes.js'
import { type Command, commandForm, commandTable } from './command-table.js'
import { explain, separated } from './wrong-arguments.js'

/** Columns of a terminal that are used. */
const WIDTH = Math.min(100, process.stdout.columns ?? 100)
const NAME_WIDTH = 24

/** Breaks a text into lines. */
function lines(text: string, width: number): string[] {
  return text.match(new RegExp(`.{1,${width}}(?= |$)|\\S+`, 'g'))?.map(line => line.trim()) ?? ['']
}

function optionHelp(): string {
  const indent = `\n${' '.repeat(NAME_WIDTH + 2)}`
  const rows = optionTable.map(row => {
    const name = row.value ? `${row.name}=${row.value}` : row.name
    const help = lines(row.help.replace('see below', 'see virtiofs-bridge(1)'), Math.max(20, WIDTH - NAME_WIDTH - 2)).join(indent)
    return `  ${name.length < NAME_WIDTH ? name.padEnd(NAME_WIDTH) : name + indent}${help}`
  })
  return ['Options of -o:', ...rows, '  and ro, nosuid, nodev, noexec, sync, noatime … as in mount(8)'].join('\n')
}

/** From the package itself: the parser would look beside the program that was started. */
function ownVersion(): string {
  return (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
}

function declare(parser: Argv, command: Command): Argv {
  for (const [name, positional] of Object.entries(command.positionals)) parser.positional(name, positional)
  // a string without a value would be empty
  const options = Object.fromEntries(Object.entries(command.options).map(([name, option]) => [name, { ...option, requiresArg: option.type !== 'boolean' }]))
  return parser.options(options).epilogue([command.details, ...command.isDefault ? ['', optionHelp()] : []].join('\n'))
}

/** Parses the arguments and runs the command that they name. @returns its exit code @throws what it throws */
export async function runCommandLine(given: string[]): Promise<number> {
  let exitCode: number = ExitCode.OK
  // `help COMMAND` as git(1) has it
  const args = separated(given[0] === 'help' ? [...given.slice(1), '--help'] : given)
  const parser = yargs(args)
    .scriptName('virtiofs-bridge')
    .parserConfiguration({ 'parse-numbers': false, 'parse-positional-numbers': false, 'boolean-negation': false })
    .usage('$0 SOURCE MOUNTPOINT [-o OPTION[,OPTION...]] [-f]\n\nMounts a virtio-fs device on this host: a directory, unix:SOCKET of a vhost-user backend, a tag with -o socket=PATH, ssh://[USER@]HOST[:PORT]/PATH or exec:COMMAND.')
  for (const command of commandTable) {
    const form = commandForm(command)
    parser.command(command.isDefault ? [form, form.replace(command.name, '$0')] : form, command.describe, parser => declare(parser, command), async args => {
      exitCode = await command.run(args as never)
    })
  }
  await parser
    .strict()
    .recommendCommands()
    .help().alias('h', 'help')
    .version(ownVersion()).alias('V', 'version')
    .wrap(WIDTH)
    .exitProcess(false)
    .fail((message, error) => {
      // what the parser finds wrong comes as a message alone, or as an error of its own
      if (error && error.name !== 'YError') throw error
      throw new UsageError(explain(message || error.message, args))
    })
    .parseAsync()
  return exitCode
}
