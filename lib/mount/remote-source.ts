/** Sources on another host: `exec:COMMAND` and `ssh://[user@]host[:port]/path`. */
import { basename } from 'node:path'
import { UsageError } from '../errors.js'
import type { MountOptions } from './options.js'
import { quoteForShell, splitWords } from './split-words.js'

export interface RemoteSource {
  /** The command whose standard input and output are the stream. */
  argv: readonly string[]
  /** For a tag. */
  path: string
}

const DEFAULT_RSH = 'ssh'
const DEFAULT_COMMAND = 'virtiofs-bridge'
/** Nobody is there to answer questions, and a line that is dead must be noticed. */
const SSH_OPTIONS = ['-oBatchMode=yes', '-oServerAliveInterval=15', '-oServerAliveCountMax=3', '-T', '-x']

/** [user@]host[:port]/path; an IPv6 address stands in brackets. */
const SSH_URL = /^ssh:\/\/(?:([^/]*)@)?(\[[^\]/]*\]|[^:/@[\]]*)(?::([^/]*))?(\/.*)?$/s

/** @returns undefined when the source is of another kind @throws UsageError */
export function parseRemote(source: string, options: MountOptions): RemoteSource | undefined {
  if (source.startsWith('exec:')) {
    for (const [key, name] of [['rsh', 'rsh'], ['relayCommand', 'relay_command']] as const) {
      if (options[key] !== undefined) throw new UsageError(`option ${name} needs a source ssh://, not exec:`)
    }
    const argv = splitWords(source.slice('exec:'.length), `source ${source}`)
    return { argv, path: argv.at(-1)! }
  }
  return source.startsWith('ssh:') ? parseSsh(source, options) : undefined
}

function decode(text: string, source: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new UsageError(`source ${source}: a % that is not followed by two hexadecimal digits of UTF-8 (%25 stands for it)`)
  }
}

function parseSsh(source: string, { rsh = DEFAULT_RSH, relayCommand = DEFAULT_COMMAND }: MountOptions): RemoteSource {
  const match = SSH_URL.exec(source)
  if (!match) throw new UsageError(`source ${source}: expected ssh://[user@]host[:port]/path`)
  const user = match[1] === undefined ? undefined : safe(decode(match[1], source), 'user', source)
  const host = safe(decode(match[2]!.replace(/^\[(.*)\]$/s, '$1'), source), 'host', source)
  const port = match[3]
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65535)) throw new UsageError(`source ${source}: port "${port}", expected 1 to 65535`)
  const path = decode(match[4] ?? '', source)
  if (path === '') throw new UsageError(`source ${source} has no path`)
  if (path.includes('\0')) throw new UsageError(`source ${source}: a path contains no NUL`)
  const program = splitWords(rsh, 'option rsh')
  return {
    argv: [
      ...program, ...basename(program[0]!) === 'ssh' ? SSH_OPTIONS : [], ...port === undefined ? [] : ['-p', String(Number(port))],
      ...user === undefined ? [] : ['-l', user], host, `${relayCommand} relay ${quoteForShell(path)}`,
    ],
    path,
  }
}

/** Never taken for an option by the program that gets it, and one word. @throws UsageError */
function safe(text: string, what: string, source: string): string {
  if (text === '') throw new UsageError(`source ${source}: the ${what} is empty`)
  if (text.startsWith('-')) throw new UsageError(`source ${source}: a ${what} that begins with - is refused`)
  if (/[\s\0-\x1f\x7f'"`$\\;&|<>(){}*?!]/.test(text)) throw new UsageError(`source ${source}: ${what} ${JSON.stringify(text)} contains a character that none has`)
  return text
}
