/** The manual page and --help say everything that the command takes, and the completion offers it. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { exitCodeHelp, ExitCode } from '../../bin/exit-codes.js'
import { commandTable } from '../../bin/command-table.js'
import { plainMount } from '../../bin/plain-mount.js'
import { COMMAND_NAMES } from '../../lib/mount/command-names.js'
import { mountFlags, optionTable } from '../../lib/mount/options.js'
import { BRIDGE, noProgram } from '../support/peers.js'
import { run, runToEnd } from '../support/program.js'
import { packageRoot } from '../support/vhost-user-session.js'

const page = join(packageRoot(), 'dist/man/virtiofs-bridge.1')

/** Names of options as they are typed. */
function spelled(options: Record<string, { alias?: string | readonly string[] | undefined, hidden?: boolean | undefined }>): string[] {
  return Object.entries(options).filter(([, { hidden }]) => !hidden).flatMap(([name, { alias = [] }]) => [name, ...[alias].flat()]).map(name => name.length === 1 ? `-${name}` : `--${name}`)
}

t.test('the manual page has everything', { skip: noProgram('groff') }, async t => {
  t.equal((JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { man: string[] }).man[0], 'dist/man/virtiofs-bridge.1')
  if (!existsSync(page)) await run([process.execPath, join(packageRoot(), 'dist/docs/manual.js')])
  const shown = await runToEnd(['groff', '-Kutf8', '-man', '-Tutf8', '-ww', '-rLL=500n', '-P-c', page])
  t.match(shown, { exit: { code: 0 }, stderr: '' }, 'groff shows it, and has nothing to complain about')
  // what is bold or underlined is struck twice
  const text = shown.stdout.replace(/.\x08/g, '').replace(/\x1b\[[\d;]*m/g, '').replace(/ +/g, ' ').replaceAll('‐', '-')
  for (const section of ['NAME', 'SYNOPSIS', 'DESCRIPTION', 'COMMANDS', 'OPTIONS OF -o', 'WHEN THE BACKEND DIES', 'ANOTHER HOST', 'EXIT STATUS', 'ENVIRONMENT', 'FILES', 'EXAMPLES', 'SEE ALSO']) t.match(text, new RegExp(`^${section}$`, 'm'))
  t.notMatch(text, /&#?\w+;/, 'no HTML')
  for (const command of commandTable) {
    const section = new RegExp(`^ ${command.name}\\n((?: .*\\n|\\n)*?)(?=^ \\S+\\n|^\\S)`, 'm').exec(text.slice(text.indexOf('\nCOMMANDS\n')))?.[1] ?? ''
    t.ok(section.includes(command.details), `${command.name}: what is to be said`)
    for (const option of spelled(command.options)) t.ok(section.includes(option), `${command.name} ${option}`)
    for (const { describe, defaultDescription } of Object.values(command.options)) if (defaultDescription) t.ok(section.includes(`${describe} (default: ${defaultDescription})`), `${command.name}: ${describe}`)
    for (const [name, { describe }] of Object.entries(command.positionals)) t.ok(section.includes(name) && section.includes(describe!), `${command.name} ${name}`)
  }
  for (const { name, value, help } of optionTable) t.ok(text.includes(` ${name}${value ? `=${value}` : ''}:\n ${help}\n`), name)
  for (const flag of mountFlags) t.match(text, new RegExp(`\\b${flag}\\b`), flag)
  for (const [code, help] of Object.entries(exitCodeHelp)) t.ok(text.includes(` ${code}:\n ${help}`), `exit code ${code}`)
})

t.test('--help has everything', async t => {
  t.strictSame(Object.keys(exitCodeHelp).map(Number), Object.values(ExitCode).sort((a, b) => a - b))
  const words = (text: string): string => text.replace(/[ \n]+/g, ' ')
  const script = `
    const { runCommandLine } = await import(${JSON.stringify(new URL('../../bin/command-line.js', import.meta.url).href)})
    for (const words of ${JSON.stringify([[], ...commandTable.map(({ name }) => [name])])}) {
      await runCommandLine([...words, '--help'])
      console.log('\\f')
    }`
  const printed = await run([process.execPath, '--input-type=module', '-e', script])
  for (const { name, value } of optionTable) t.ok(new RegExp(`^  ${(value ? `${name}=${value}` : name).replaceAll('|', '\\|')}\\s`, 'm').test(printed), `${name} stands apart from what is said of it`)
  const [top = '', ...pages] = words(printed).split('\f')
  const { stdout } = await runToEnd([...BRIDGE, 'help', 'status'])
  t.equal(words(stdout).trim(), pages[commandTable.findIndex(({ name }) => name === 'status')]!.trim(), 'help COMMAND is COMMAND --help')
  for (const [i, command] of commandTable.entries()) {
    t.ok(top.includes(`virtiofs-bridge ${command.name}`), command.name)
    const help = pages[i]!
    t.ok(help.includes(words(command.describe)) && help.includes(words(command.details)), `${command.name}: what is to be said`)
    for (const option of spelled(command.options)) t.ok(help.includes(option), `${command.name} ${option}`)
    t.equal(plainMount([command.name, '/mnt']), undefined, `${command.name} is no source`)
    t.ok(COMMAND_NAMES.includes(command.name), `${command.name} is meant by who mistypes it`)
  }
  for (const { name, help } of optionTable) t.ok(top.includes(` ${name}`) && top.includes(words(help.replace('see below', 'see virtiofs-bridge(1)'))), name)
})

/** What bash offers for command lines. */
async function inBash(lines: readonly string[]): Promise<string[][]> {
  const quoted = BRIDGE.map(word => `'${word}'`).join(' ')
  // as readline would: words are parted at blanks and at = and :
  const script = `
    virtiofs-bridge() { ${quoted} "$@"; }
    eval "$(virtiofs-bridge completion bash)"
    compopt() { :; }
    for COMP_LINE; do
      COMP_POINT=\${#COMP_LINE}
      COMP_WORDS=($(sed -E 's/([=:])/ \\1 /g' <<<"$COMP_LINE")); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
      COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
      _virtiofs_bridge
      echo "\${COMPREPLY[@]}"
    done`
  return (await run(['bash', '-c', script, 'bash', ...lines])).split('\n').map(line => line === '' ? [] : line.split(' '))
}

t.test('completion in bash', { skip: noProgram('bash') }, async t => {
  const expected: [line: string, words: string[], why?: string][] = [
    ['virtiofs-bridge ', commandTable.map(({ name }) => name), 'commands'],
    ['virtiofs-bridge un', ['uninstall']],
    ['virtiofs-bridge /no/such', [], 'a source is a file: the shell\'s own'],
    ['virtiofs-bridge umount --', ['--lazy', '--abort', '--help']],
    ['virtiofs-bridge /srv /mnt -o xattr,queue', ['xattr,queues=', 'xattr,queue_size=']],
    ['virtiofs-bridge /srv /mnt -o xattr,cache=', ['auto', 'always', 'metadata', 'never', 'coherent'], 'readline has parted off what is before ='],
    ['virtiofs-bridge /srv /mnt -o noat', ['noatime']],
    ['virtiofs-bridge trace x --op LOOKUP,READD', ['LOOKUP,READDIR', 'LOOKUP,READDIRPLUS']],
    ['virtiofs-bridge completion ', ['bash', 'zsh']],
    ['virtiofs-bridge install --directory ', [], 'a directory: the shell\'s own'],
  ]
  const found = await inBash(expected.map(([line]) => line))
  for (const [i, [line, words, why]] of expected.entries()) t.strictSame(found[i], words, `${line}${why ? `: ${why}` : ''}`)
})

t.test('completion in zsh', { skip: noProgram('zsh') }, async t => {
  const quoted = BRIDGE.map(word => `'${word}'`).join(' ')
  const script = `
    virtiofs-bridge() { ${quoted} "$@"; }
    compdef() { print "compdef $*"; }
    eval "$(virtiofs-bridge completion zsh)"
    _files() { print files; }
    compadd() { print -r -- "$@"; }
    words=(\${(s: :)1}) CURRENT=\${#words}
    _virtiofs_bridge`
  const inZsh = async (line: string): Promise<string[]> => (await run(['zsh', '-fc', script, 'zsh', line])).trimEnd().split('\n')
  t.strictSame(await inZsh('virtiofs-bridge un'), ['compdef _virtiofs_bridge virtiofs-bridge', '-S  --', '-- uninstall'])
  t.strictSame((await inZsh('virtiofs-bridge /srv /mnt -o xattr,queue')).slice(1), ['-S  -- xattr,queues= xattr,queue_size=', '--'])
  t.strictSame((await inZsh('virtiofs-bridge /no/such')).slice(1), ['files'])
})
