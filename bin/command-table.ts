/**
 * Every command with its arguments and what is said of them: the one source of the parser, --help,
 * the manual page and the completion. A command's code is loaded when it is run: starting up is a
 * measured figure.
 */
import type { InferredOptionTypes, Options, PositionalOptions } from 'yargs'
import { UsageError } from '../lib/errors.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { HELPER_DIRECTORY } from './helper-arguments.js'

export interface Command {
  name: string
  /** Runs when no command is named. */
  isDefault?: boolean
  /** Its argument is a live mount. */
  ofMounts?: boolean
  /** In their order; `demandOption` makes one necessary. */
  positionals: Record<string, PositionalOptions>
  options: Record<string, Options>
  /** One line. */
  describe: string
  /** What else is to be said, in sentences. */
  details: string
  /** @returns the exit code */
  run: (args: never) => Promise<number>
}

/** Checks that what a command runs fits what it declares. */
function define<const P extends Record<string, PositionalOptions>, const O extends Record<string, Options>>(
  command: Omit<Command, 'positionals' | 'options' | 'run'> & { positionals: P, options: O, run: (args: InferredOptionTypes<P & O>) => Promise<number> },
): Command {
  return command as unknown as Command
}

const json = { type: 'boolean', default: false, describe: 'print JSON' } as const
const target = { type: 'string', demandOption: true, describe: 'a mount point, or the tag of a live mount' } as const
const source = { type: 'string', demandOption: true, describe: 'a directory, unix:PATH, a socket, a tag, ssh:// or exec:' } as const
const mountOptions = { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'mount options, comma-separated', defaultDescription: 'none' } as const
const directory = { type: 'string', default: HELPER_DIRECTORY, describe: 'where mount(8) looks for them' } as const

function positive(name: string, number: number): number {
  if (!(number > 0)) throw new UsageError(`--${name}: expected a number above 0`)
  return number
}

export const commandTable: readonly Command[] = [
  define({
    name: 'mount', isDefault: true, describe: 'mount (the default command)',
    details: 'Returns when the mount is usable, and leaves a process behind that serves it; with -f it stays until the mount ends. A source or a mount point that has the name of a command is written ./NAME.',
    positionals: { source, mountpoint: { type: 'string', demandOption: true, describe: 'an existing directory' } },
    options: { o: mountOptions, f: { alias: 'foreground', type: 'boolean', default: false, describe: 'stay in the foreground' } },
    run: async args => await (await import('./run-mount.js')).runMount({ source: args.source, mountpoint: args.mountpoint, options: args.o }, args.f),
  }),
  define({
    name: 'umount', ofMounts: true, describe: 'unmount a mount point or a tag, and wait until the session has ended',
    details: 'umount(8) and fusermount3 -u work too, without the waiting.',
    positionals: { mountpoint: target },
    options: {
      lazy: { alias: 'l', type: 'boolean', default: false, describe: 'detach now, end when the last user is gone' },
      abort: { type: 'boolean', default: false, describe: 'give errors to those who use it' },
    },
    run: async args => await (await import('./umount-command.js')).umountCommand(args.mountpoint, { lazy: args.lazy, abort: args.abort }),
  }),
  define({
    name: 'status', ofMounts: true, describe: 'list the mounts of this machine, or say all about one',
    details: 'Does not touch the mounts. The exit code is 32 when one of them is not well.',
    positionals: { mountpoint: { type: 'string', describe: target.describe } },
    options: { json },
    run: async args => await (await import('./status-command.js')).statusCommand(args.mountpoint, args.json),
  }),
  define({
    name: 'stats', ofMounts: true, describe: 'show how fast a mount is: operations, latencies, bytes, queues, polling',
    details: 'Latencies are counted only while somebody looks.',
    positionals: { mountpoint: target },
    options: {
      watch: { alias: 'w', type: 'boolean', default: false, describe: 'go on until it is stopped' },
      interval: { type: 'number', default: 1, describe: 'seconds to look at' },
      json,
    },
    run: async args => await (await import('./stats-command.js')).statsCommand(args.mountpoint, { watch: args.watch, json: args.json, interval: positive('interval', args.interval) }),
  }),
  define({
    name: 'replace', ofMounts: true, describe: 'go on with another backend, without losing anything',
    details: 'The old backend hands its state over to the new one, so it has to be virtiofsd 1.11 or later; requests wait meanwhile. A backend that the bridge has started is replaced by one that it starts. When it cannot be done, the old backend goes on.',
    positionals: { mountpoint: target },
    options: {
      socket: { type: 'string', describe: 'where the new backend listens', defaultDescription: 'as the old one' },
      virtiofsd: { type: 'string', describe: 'the binary to start', defaultDescription: 'as the old one' },
    },
    run: async args => await (await import('./replace-command.js')).replaceCommand(args.mountpoint, { socket: args.socket, virtiofsd: args.virtiofsd }),
  }),
  define({
    name: 'trace', ofMounts: true, describe: 'show the requests of a mount as they end',
    details: 'A file that the kernel knew before the trace began has a number, such as ?42, until it is looked up again.',
    positionals: { mountpoint: target },
    options: {
      op: { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'only these FUSE opcodes, comma-separated', defaultDescription: 'all' },
      path: { type: 'string', describe: 'only this path in the mount, and what is below it' },
      error: { type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'only those that failed: ENOENT,EIO… or any', defaultDescription: 'all' },
      slower: { type: 'string', describe: 'only those that took longer: 500us, 2ms, 1s' },
      count: { type: 'number', describe: 'end after so many' },
      json: { ...json, describe: 'a JSON object a line' },
    },
    run: async ({ mountpoint, op, path, error, slower, json, count }) => {
      const { traceCommand } = await import('./trace-command.js')
      return await traceCommand(mountpoint, { op, path, error, slower, json, count: count === undefined ? undefined : positive('count', count) })
    },
  }),
  define({
    name: 'probe', describe: 'connect to a device, print what it is, disconnect',
    details: 'Negotiates, and sends INIT. A virtiofsd serves one client: it ends with the probe.',
    positionals: { source },
    options: { o: mountOptions, json },
    run: async args => await (await import('./probe-command.js')).probeCommand(args.source, parseMountOptions(args.o), args.json),
  }),
  define({
    name: 'relay', describe: 'serve a device to a mount on another host, on standard input and output',
    details: 'What a mount of ssh://HOST/PATH starts on that host, and what exec:COMMAND is for.',
    positionals: { source: { ...source, describe: 'a directory, unix:PATH, or a socket' } },
    options: { o: mountOptions },
    run: async args => await (await import('./relay-command.js')).relayCommand(args.source, parseMountOptions(args.o)),
  }),
  define({
    name: 'doctor', describe: 'look for what is missing or not well, and say what to do about it',
    details: 'Looks at the kernel, /dev/fuse, rights, programs, limits and mounts. The exit code is 2 when mounting does not work here, 32 when a mount is not well.',
    positionals: {},
    options: { fix: { type: 'boolean', default: false, describe: 'unmount the mounts whose process has ended' }, json },
    run: async args => await (await import('./doctor-command.js')).doctorCommand({ json: args.json, fix: args.fix }),
  }),
  define({
    name: 'install', describe: 'put the helpers of mount(8) in place, for mount -t virtiofs-bridge and /etc/fstab',
    details: 'The helpers are mount.virtiofs-bridge and mount.fuse.virtiofs-bridge.',
    positionals: {}, options: { directory },
    run: async args => (await import('./install-command.js')).installCommand(args.directory),
  }),
  define({
    name: 'uninstall', describe: 'remove the helpers of mount(8)',
    details: 'What virtiofs-bridge did not put there stays.',
    positionals: {}, options: { directory },
    run: async args => (await import('./install-command.js')).uninstallCommand(args.directory),
  }),
  define({
    name: 'completion', describe: 'print a script that completes this command in a shell',
    details: 'For bash, in ~/.bashrc: eval "$(virtiofs-bridge completion bash)". For zsh, in ~/.zshrc after compinit: eval "$(virtiofs-bridge completion zsh)".',
    positionals: { shell: { choices: ['bash', 'zsh'], demandOption: true, describe: 'which shell' } },
    options: { line: { type: 'string', hidden: true, describe: 'what was typed: print what may follow' } },
    run: async args => (await import('./completion-command.js')).completionCommand(args.shell, args.line),
  }),
]

/** What a command is called with: `umount <mountpoint>`. */
export function commandForm(command: Command): string {
  return [command.name, ...Object.entries(command.positionals).map(([name, { demandOption }]) => demandOption ? `<${name}>` : `[${name}]`)].join(' ')
}
