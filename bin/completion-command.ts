/**
 * `virtiofs-bridge completion SHELL`: a script for the shell, and with --line what may follow there,
 * which is what the script asks for. The shell's own completion of file names comes in where this
 * has nothing to say.
 */
import { opcodeRows } from '../lib/fuse/opcodes.js'
import { liveMounts } from '../lib/mount/live-tags.js'
import { FS_TYPE, readMounts } from '../lib/mount/mountinfo.js'
import { mountFlags, optionTable } from '../lib/mount/options.js'
import { type Command, commandTable } from './command-table.js'
import { ExitCode } from './exit-codes.js'

// bash takes = and : for the ends of words: what it has parted off must not come again
const BASH = `_virtiofs_bridge() {
  local line=\${COMP_LINE:0:COMP_POINT} word parted=
  word=\${line##* }
  [[ $COMP_WORDBREAKS == *=* ]] && parted=\${word%"\${word##*[=:]}"}
  mapfile -t COMPREPLY < <(virtiofs-bridge completion bash --line "$line" 2>/dev/null)
  COMPREPLY=("\${COMPREPLY[@]#"$parted"}")
  [[ \${#COMPREPLY[@]} == 1 && \${COMPREPLY[0]} == *= ]] && compopt -o nospace
  return 0
}
complete -o bashdefault -o default -F _virtiofs_bridge virtiofs-bridge`

const ZSH = `_virtiofs_bridge() {
  local -a found
  found=(\${(f)"$(virtiofs-bridge completion zsh --line "\${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
  if (( \${#found} == 0 )); then
    _files
  else
    compadd -S '' -- \${(M)found:#*=}
    compadd -- \${found:#*=}
  fi
}
compdef _virtiofs_bridge virtiofs-bridge`

/** @param line what was typed up to the cursor; without it the script is printed @returns the exit code */
export function completionCommand(shell: string, line: string | undefined): number {
  if (line === undefined) console.log(shell === 'zsh' ? ZSH : BASH)
  else for (const word of completions(line)) console.log(word)
  return ExitCode.OK
}

/** The words that may stand in the place of the last one. */
export function completions(line: string): string[] {
  const words = line.trimStart().split(/\s+/).slice(1)
  const word = words.at(-1) ?? ''
  const before = words.slice(0, -1)
  const named = commandTable.find(({ name }) => name === before[0])
  const command = named ?? commandTable.find(({ isDefault }) => isDefault)!
  const candidates = optionValues(command, before.at(-1), word) ?? (word.startsWith('-') ? optionNames(command) : [
    ...before.length === 0 ? commandTable.map(({ name }) => name) : [],
    ...named ? Object.values(command.positionals).flatMap(({ choices }) => (choices ?? []) as string[]) : [],
    ...command.ofMounts && named ? mountNames() : [],
  ])
  return candidates.filter(candidate => candidate.startsWith(word) && candidate !== '')
}

function optionNames({ options }: Command): string[] {
  const names = Object.entries(options).filter(([, { hidden }]) => !hidden).flatMap(([name, { alias = [] }]) => [name, ...[alias].flat()])
  return [...names, 'help'].map(name => name.length === 1 ? `-${name}` : `--${name}`)
}

/** What may be the value of the option before; none when that takes no value, or any. */
function optionValues(command: Command, before: string | undefined, word: string): string[] | undefined {
  const name = /^--?(\w+)$/.exec(before ?? '')?.[1]
  const option = name === undefined ? undefined : Object.entries(command.options).find(([key, { alias = [] }]) => key === name || [alias].flat().includes(name))
  if (!option || option[1].type === 'boolean') return undefined
  const list = word.slice(0, word.lastIndexOf(',') + 1)
  if (option[0] === 'o') return mountOptionWords(word.slice(list.length)).map(text => list + text)
  if (option[0] === 'op') return opcodeRows.map(({ name }) => list + name)
  return []
}

function mountOptionWords(word: string): string[] {
  const equals = word.indexOf('=')
  if (equals < 0) return [...optionTable.map(({ name, value }) => value === undefined ? name : `${name}=`), ...mountFlags]
  const row = optionTable.find(({ name }) => name === word.slice(0, equals))
  const choices = row?.choices ?? (row?.value?.includes('|') ? row.value.split('|').filter(text => !/[A-Z]/.test(text)) : [])
  return choices.map(choice => `${row!.name}=${choice}`)
}

/** Mount points and tags, as far as they are known without asking anybody. */
function mountNames(): string[] {
  const places = readMounts().filter(({ type }) => type === FS_TYPE).map(({ mountpoint }) => mountpoint)
  return [...new Set([...places, ...liveMounts().map(({ tag }) => tag)])]
}
