/** What is said of arguments that the parser finds wrong: what was wrong with which, and what is expected. */
import type { Options } from 'yargs'
import { nearest } from '../lib/mount/nearest.js'
import { type Command, commandForm, commandTable } from './command-table.js'

const defaultCommand = commandTable.find(({ isDefault }) => isDefault)!

function commandOf([name]: readonly string[]): Command {
  return commandTable.find(each => each.name === name) ?? defaultCommand
}

/** How the command that was named is called, or the default one. */
function usageOf(args: readonly string[]): string {
  const command = commandOf(args)
  const form = commandForm(command)
  return `usage: virtiofs-bridge ${(args[0] === command.name ? form : form.slice(command.name.length + 1)).replace(/<([^>]*)>/g, (_, word: string) => word.toUpperCase()).replace(/\[([^\]]*)\]/g, (_, word: string) => `[${word.toUpperCase()}]`)}`
}

/** `-oro,dev` in two words, as the parser wants it. */
export function separated(args: readonly string[]): string[] {
  if (!Object.hasOwn(commandOf(args).options, 'o')) return [...args]
  const end = args.indexOf('--')
  return args.flatMap((arg, i) => (end < 0 || i < end) && /^-o./.test(arg) && args[i - 1] !== '-o' ? ['-o', arg.slice(2).replace(/^=/, '')] : [arg])
}

const DEBUGGING = 'DEBUG=\'virtiofs:*\' in the environment, with -f, prints what happens'

/** Options of other FUSE commands, of mount(8) and of umount(8), that people type by habit; by command. */
const HABITS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  mount: {
    s: 'not needed, leave it out: each request queue has one thread (-o queues=N)', d: DEBUGGING, debug: DEBUGGING, v: DEBUGGING, r: 'use -o ro', w: 'use -o rw', n: 'leave it out',
    p: 'use ssh://HOST:PORT/PATH', C: 'use -o rsh=\'ssh -C\'', F: 'use -o rsh=\'ssh -F FILE\'', t: 'the type is for mount(8): mount -t virtiofs-bridge', u: 'use virtiofs-bridge umount MOUNTPOINT',
  },
  umount: { f: 'use --abort', force: 'use --abort', z: 'use --lazy', u: 'leave it out', q: 'leave it out' },
}

/** A command that is not there, when its name is like that of one that is. */
function mistyped([name = '']: readonly string[]): string | undefined {
  if (name.startsWith('-') || name.includes('/') || commandTable.some(command => command.name === name)) return undefined
  const meant = nearest(name, commandTable.map(command => command.name))
  return meant === undefined ? undefined : `no command ${name} (did you mean ${meant}?)`
}

function dashed(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`
}

function namesOf(options: Record<string, Options>): string[] {
  return [...Object.entries(options).flatMap(([name, { alias = [], hidden }]) => hidden ? [] : [name, ...[alias].flat()]), 'help', 'version', 'h', 'V']
}

function unknown(word: string, args: readonly string[]): string {
  const command = commandOf(args)
  if (args.includes(word) && !word.startsWith('-')) return `argument "${word}" is one too many; ${usageOf(args)}`
  const habit = Object.hasOwn(HABITS, command.name) ? HABITS[command.name]! : {}
  if (Object.hasOwn(habit, word)) return `option ${dashed(word)}: ${habit[word]!}`
  const meant = nearest(word, namesOf(command.options).filter(name => name.length > 1))
  return `unknown option ${dashed(word)}${meant === undefined ? '' : ` (did you mean --${meant}?)`}`
}

/** The first option that the command does not have: the parser takes the word after it for its value, and then misses that. */
function oddOption(args: readonly string[]): string | undefined {
  const known = namesOf(commandOf(args).options)
  return args.map(arg => /^-(?:-([^=]+)|(\w))/.exec(arg)).map(match => match?.[1] ?? match?.[2]).find(name => name !== undefined && !known.includes(name))
}

/**
 * @param message of the parser, of several lines perhaps
 * @returns one line
 */
export function explain(message: string, args: readonly string[]): string {
  const line = reason(message, args)
  return /did you mean|^option --?\w+: /.test(line) ? line : `${line} (try --help)`
}

function reason(message: string, args: readonly string[]): string {
  const [first = '', ...more] = message.split('\n').map(line => line.trim())
  if (first.startsWith('Not enough non-option')) {
    const odd = oddOption(args)
    return mistyped(args) ?? (odd === undefined ? usageOf(args) : unknown(odd, args))
  }
  const [, lacking] = /^Not enough arguments following: (.+)$/.exec(first) ?? []
  if (lacking !== undefined) return `option ${dashed(lacking)} needs a value`
  const [, words] = /^Unknown arguments?: (.+)$/.exec(first) ?? []
  if (words !== undefined) return mistyped(args) ?? unknown(words.split(', ')[0]!, args)
  const [, argument, given, choices] = /^Argument: (\S+), Given: (.*), Choices: (.*)$/.exec(more.find(line => line.startsWith('Argument: ')) ?? '') ?? []
  if (argument !== undefined) return `${argument.toUpperCase()} is ${given}, expected ${choices!.replaceAll('"', '').replaceAll(', ', ' or ')}`
  return [first, ...more].filter(line => line !== '').join(' ')
}
