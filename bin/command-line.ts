/** The grammar of the command. Each command is loaded when it is asked for: starting up is a measured figure. */
import yargs, { type Argv } from 'yargs'
import { UsageError } from '../lib/errors.js'
import { optionTable, parseMountOptions } from '../lib/mount/options.js'
import { HELPER_DIRECTORY } from './helper-arguments.js'
import { runMount } from './run-mount.js'

function optionHelp(): string {
  const width = 22
  return 'Options of -o:\n' + optionTable.map(row => `  ${(row.value ? `${row.name}=${row.value}` : row.name).padEnd(width)}  ${row.help}`).join('\n')
    + '\n  and ro, nosuid, nodev, noexec, sync, noatime … as in mount(8)'
}

const jsonOption = { type: 'boolean', default: false, describe: 'print JSON' } as const

function positive(name: string, number: number): number {
  if (!(number > 0)) throw new UsageError(`--${name}: expected a number above 0`)
  return number
}

function directoryOption<T>(command: Argv<T>) {
  return command.option('directory', { type: 'string', default: HELPER_DIRECTORY, describe: 'where mount(8) looks for them' })
}

/** Parses the arguments and runs the command that they name; sets `process.exitCode`. @throws what it throws */
export async function runCommandLine(args: string[]): Promise<void> {
  await yargs(args)
    .scriptName('virtiofs-bridge')
    .parserConfiguration({ 'parse-numbers': false, 'parse-positional-numbers': false, 'boolean-negation': false })
    .usage('$0 SOURCE MOUNTPOINT [-o OPTION[,OPTION...]] [-f]\n\nMounts a virtio-fs device on this host: a directory, unix:SOCKET of a vhost-user backend, a tag with -o socket=PATH, ssh://[USER@]HOST[:PORT]/PATH or exec:COMMAND.')
    .command(['mount <source> <mountpoint>', '$0 <source> <mountpoint>'], 'mount (the default command)', command => command
      .positional('source', { type: 'string', demandOption: true, describe: 'a directory, unix:PATH, a socket, a tag, ssh:// or exec:' })
      .positional('mountpoint', { type: 'string', demandOption: true })
      .option('o', { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'mount options, comma-separated', defaultDescription: 'none' })
      .option('f', { alias: 'foreground', type: 'boolean', default: false, describe: 'stay in the foreground' })
      .epilogue(optionHelp()),
    async args => {
      process.exitCode = await runMount({ source: args.source, mountpoint: args.mountpoint, options: parseMountOptions(args.o) }, args.f)
    })
    .command('umount <mountpoint>', 'unmount a mount point or a tag, and wait until the session has ended', command => command
      .positional('mountpoint', { type: 'string', demandOption: true, describe: 'a mount point, or the tag of a live mount' })
      .option('lazy', { alias: 'l', type: 'boolean', default: false, describe: 'detach now, end when the last user is gone' })
      .option('abort', { type: 'boolean', default: false, describe: 'give errors to those who use it' }),
    async args => { process.exitCode = await (await import('./umount-command.js')).umountCommand(args.mountpoint, { lazy: args.lazy, abort: args.abort }) })
    .command('status [mountpoint]', 'list the mounts of this machine, or say all about one', command => command
      .positional('mountpoint', { type: 'string', describe: 'a mount point, or the tag of a live mount' })
      .option('json', jsonOption),
    async args => { process.exitCode = await (await import('./status-command.js')).statusCommand(args.mountpoint, args.json) })
    .command('stats <mountpoint>', 'show how fast a mount is: operations, latencies, bytes, queues, polling', command => command
      .positional('mountpoint', { type: 'string', demandOption: true, describe: 'a mount point, or the tag of a live mount' })
      .option('watch', { alias: 'w', type: 'boolean', default: false, describe: 'go on until it is stopped' })
      .option('interval', { type: 'number', default: 1, describe: 'seconds to look at' })
      .option('json', jsonOption),
    async args => { process.exitCode = await (await import('./stats-command.js')).statsCommand(args.mountpoint, { watch: args.watch, json: args.json, interval: positive('interval', args.interval) }) })
    .command('trace <mountpoint>', 'show the requests of a mount as they end', command => command
      .positional('mountpoint', { type: 'string', demandOption: true, describe: 'a mount point, or the tag of a live mount' })
      .option('op', { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'only these FUSE opcodes, comma-separated', defaultDescription: 'all' })
      .option('path', { type: 'string', describe: 'only this path in the mount, and what is below it' })
      .option('error', { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'only those that failed: ENOENT,EIO… or any', defaultDescription: 'all' })
      .option('slower', { type: 'string', describe: 'only those that took longer: 500us, 2ms, 1s' })
      .option('count', { type: 'number', describe: 'end after so many' })
      .option('json', { ...jsonOption, describe: 'a JSON object a line' }),
    async args => {
      const { op, path, error, slower, json } = args
      process.exitCode = await (await import('./trace-command.js')).traceCommand(args.mountpoint, { op, path, error, slower, json, count: args.count === undefined ? undefined : positive('count', args.count) })
    })
    .command('probe <source>', 'connect to a device, print what it is, disconnect', command => command
      .positional('source', { type: 'string', demandOption: true })
      .option('o', { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'mount options, comma-separated', defaultDescription: 'none' })
      .option('json', jsonOption),
    async args => { process.exitCode = await (await import('./probe-command.js')).probeCommand(args.source, parseMountOptions(args.o), args.json) })
    .command('relay <source>', 'serve a device to a mount on another host, on standard input and output', command => command
      .positional('source', { type: 'string', demandOption: true, describe: 'a directory, unix:PATH, or a socket' })
      .option('o', { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'mount options, comma-separated', defaultDescription: 'none' }),
    async args => { process.exitCode = await (await import('./relay-command.js')).relayCommand(args.source, parseMountOptions(args.o)) })
    .command('install', 'put the helpers of mount(8) in place, for mount -t virtiofs-bridge and /etc/fstab', directoryOption,
      async args => { process.exitCode = (await import('./install-command.js')).installCommand(args.directory) })
    .command('uninstall', 'remove the helpers of mount(8)', directoryOption,
      async args => { process.exitCode = (await import('./install-command.js')).uninstallCommand(args.directory) })
    .strict()
    .recommendCommands()
    .help().alias('h', 'help')
    .version().alias('V', 'version')
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .exitProcess(false)
    .fail((message, error) => {
      // what the parser finds wrong comes as a message alone, or as an error of its own
      if (error && error.name !== 'YError') throw error
      throw new UsageError(`${(message || error.message).split('\n')[0]} (try --help)`)
    })
    .parseAsync()
}
