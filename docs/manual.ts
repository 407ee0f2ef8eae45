/**
 * Writes the manual page, dist/man/virtiofs-bridge.1: what --help says, from the same tables, and
 * what goes beyond it. marked-man turns the Markdown into roff.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Options } from 'yargs'
import { type Command, commandTable } from '../bin/command-table.js'
import { exitCodeHelp } from '../bin/exit-codes.js'
import { mountFlags, optionTable } from '../lib/mount/options.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** Text in which nothing is Markdown. */
function plain(text: string): string {
  return text.replace(/[\\`*_{}[\]<>#|~]/g, '\\$&')
}

function item(term: string, text: string): string {
  return `* ${term}:\n  ${plain(text)}`
}

function valueOf(name: string, { type }: Options): string {
  return type === 'boolean' ? '' : ` *${name === 'o' ? 'OPTIONS' : name.toUpperCase()}*`
}

function spelling(name: string): string {
  return `**${name.length === 1 ? '-' : '--'}${name}**`
}

function optionForm([name, option]: [string, Options]): string {
  return [name, ...[option.alias ?? []].flat()].map(spelling).join(', ') + valueOf(name, option)
}

function optionsOf({ options }: Command): [string, Options][] {
  return Object.entries(options).filter(([, { hidden }]) => !hidden)
}

function optionText({ describe = '', default: value, type, defaultDescription }: Options): string {
  const shown = defaultDescription ?? (value === undefined ? undefined : String(value))
  return describe + (type === 'boolean' || shown === undefined ? '' : ` (default: ${shown})`)
}

function synopsis(command: Command): string {
  const positionals = Object.entries(command.positionals).map(([name, { demandOption }]) => demandOption ? `*${name}*` : `[*${name}*]`)
  const options = optionsOf(command).map(([name, option]) => `[${spelling(name)}${valueOf(name, option)}]`)
  return ['**virtiofs-bridge**', ...command.isDefault ? [] : [`**${command.name}**`], ...positionals, ...options].join(' ')
}

function commandSection(command: Command): string {
  const positionals = Object.entries(command.positionals).map(([name, { describe = '', choices }]) => item(`*${name}*`, describe + (choices ? `: ${choices.join(' or ')}` : '')))
  const options = optionsOf(command).map(each => item(optionForm(each), optionText(each[1])))
  const sentence = command.describe[0]!.toUpperCase() + command.describe.slice(1)
  return `### ${command.name}\n\n${plain(sentence)}. ${plain(command.details)}\n\n${[...positionals, ...options].join('\n')}`
}

/** A section of README, without links. */
function readme(heading: string): string {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8').split(new RegExp(`^#+ ${heading}$`, 'm'))[1]!.split(/^#/m)[0]!
  return text.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').trim()
}

/** The page as Markdown. */
export function manual(): string {
  return `# virtiofs-bridge(1) -- mount a virtio-fs device on this host

## SYNOPSIS

${commandTable.map(synopsis).join('\n')}

**mount -t fuse.virtiofs-bridge** *source* *mountpoint* [**-o** *OPTIONS*]

## DESCRIPTION

Mounts a virtio-fs device on the host, with no virtual machine: a virtiofsd that listens on a vhost-user socket, or a device that is emulated in the same process and serves a directory. The mount is a FUSE mount; its requests go to the device byte for byte, over virtqueues in shared memory.

*source* is one of these:

* **a directory**:
  The emulated device serves it; with backend=virtiofsd a virtiofsd does, which is started and ended with the mount.
* \`unix:PATH\`, or a path that is a socket:
  A vhost-user backend that listens there.
* **a tag**, with \`-o socket=PATH\`:
  The same, by name.
* \`ssh://[USER@]HOST[:PORT]/PATH\`, or \`exec:COMMAND\`:
  A directory or a vhost-user socket of another host, where virtiofs-bridge relay serves it.
* **the tag of a live mount**:
  A second mount of the same session, as root.

Paths, in options too, may be relative to where the command is run; the mount shows them from the root.

## COMMANDS

${commandTable.map(commandSection).join('\n\n')}

${item('**-h**, **--help**', 'what may be said, for each command; as virtiofs-bridge help COMMAND')}
${item('**-V**, **--version**', 'the version')}

## OPTIONS OF -o

${optionTable.map(row => item(`**${plain(row.name)}**${row.value ? `=*${plain(row.value)}*` : ''}`, row.help)).join('\n')}

And those of mount(8): ${mountFlags.map(plain).join(', ')}. Options for libmount and systemd, such as user, nofail, noauto, ${plain('_netdev')} and x-*, are taken and mean nothing here.

${readme('Options of -o').split(/^And those of mount.*$/m)[1]!.trim()}

## WHEN THE BACKEND DIES

${readme('When the backend dies')}

## ANOTHER HOST

${readme('Another host')}

## EXIT STATUS

That of mount(8):

${Object.entries(exitCodeHelp).map(([code, text]) => item(`**${code}**`, text)).join('\n')}

## ENVIRONMENT

${item('**VIRTIOFSD**', 'the virtiofsd to start for backend=virtiofsd')}
${item('**XDG\\_RUNTIME\\_DIR**', 'where tags and control sockets are: in its directory virtiofs-bridge; else /run (as root) or the directory for temporary files')}
${item('**DEBUG**', 'with -f, what to say on standard error: virtiofs:* or parts of it, such as virtiofs:fuse')}
${item('**NO\\_COLOR**', 'no colours, on a terminal too')}

## FILES

${item('**/sbin/mount.virtiofs-bridge**, **/sbin/mount.fuse.virtiofs-bridge**', 'the helpers of mount(8), when they were installed')}
${item('**/etc/fuse.conf**', 'user_allow_other, for allow_other without root')}

## EXAMPLES

A directory, a running virtiofsd, one of its own, and the end of it:

    virtiofs-bridge /srv/shared /mnt/shared
    virtiofs-bridge unix:/run/vhost.sock /mnt/shared
    virtiofs-bridge /srv/shared /mnt/shared -o backend=virtiofsd
    virtiofs-bridge umount /mnt/shared

A read-only view with a log of what was done, and what failed on it:

    virtiofs-bridge /srv/shared /mnt/shared -o ro,audit=/var/log/shared.audit
    virtiofs-bridge trace /mnt/shared --error any

In /etc/fstab, after virtiofs-bridge install:

    /srv/shared  /mnt/shared  fuse.virtiofs-bridge  xattr,nofail  0  0

## SEE ALSO

mount(8), fstab(5), fusermount3(1), fuse(4), virtiofsd(1)
`
}

const ENTITIES: Record<string, string> = { '#39': '\\(aq', quot: '"', lt: '<', gt: '>', amp: '&' }

function write(): void {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  const require = createRequire(import.meta.url)
  const program = join(dirname(require.resolve('marked-man/package.json')), 'bin/marked-man.js')
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, '--version', version, '--manual', 'virtiofs-bridge'], { input: manual(), encoding: 'utf8' })
  if (status !== 0 || !stdout.startsWith('.TH')) throw new Error(`marked-man: ${stderr || stdout}`)
  mkdirSync(join(ROOT, 'dist/man'), { recursive: true })
  // in code marked leaves what it would write into HTML
  const page = stdout.replace(/&(#39|quot|lt|gt|amp);/g, (_, name: string) => ENTITIES[name]!)
  writeFileSync(join(ROOT, 'dist/man/virtiofs-bridge.1'), page)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) write()
