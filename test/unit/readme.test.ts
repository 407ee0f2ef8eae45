/** README says what the program does: its options, its exit codes, and examples that compile and run. */
import t from 'tap'
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { exitCodeHelp } from '../../bin/exit-codes.js'
import { optionTable, parseMountOptions } from '../../lib/mount/options.js'
import { noProgram } from '../support/peers.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const README = readFileSync(join(ROOT, 'README.md'), 'utf8')
const run = promisify(execFile)

/** The text of a section, without its heading. */
function section(heading: string): string {
  return README.split(new RegExp(`^#+ ${heading}$`, 'm'))[1]!.split(/^#/m)[0]!
}

/** The cells of the rows of the first table in a text. */
function table(text: string): string[][] {
  return text.split('\n').filter(line => line.startsWith('| ') && !line.startsWith('| option |') && !line.startsWith('| code |'))
    .map(line => line.replaceAll('\\|', '\u0001').split('|').slice(1, -1).map(cell => cell.trim().replaceAll('\u0001', '|')))
}

t.test('options of README are those of the program', async t => {
  t.strictSame(table(section('Options of -o')), optionTable.map(row => [`\`${row.value ? `${row.name}=${row.value}` : row.name}\``, row.help]))
  const flags = README.match(/those of mount\(8\): `([^`]*)`/)![1]!.split(' ')
  t.ok(flags.length > 20)
  for (const flag of flags) t.doesNotThrow(() => parseMountOptions([flag]), flag)
})

t.test('exit codes of README are those of the program', async t => {
  t.strictSame(table(section('Exit codes')), Object.entries(exitCodeHelp))
})

t.test('systemd units of README', { skip: noProgram('systemd-analyze') }, async t => {
  const units = [...README.matchAll(/^```ini\n(.*?)^```$/gms)].map(([, text]) => text!)
  t.equal(units.length, 2)
  const place = mkdtempSync(join(tmpdir(), 'units-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  const paths = units.map(text => {
    const path = join(place, `mnt-shared.${text.includes('[Automount]') ? 'automount' : 'mount'}`)
    writeFileSync(path, text)
    return path
  })
  const { stdout, stderr } = await run('systemd-analyze', ['verify', ...paths])
  t.strictSame({ stdout, stderr }, { stdout: '', stderr: '' }, 'systemd-analyze has nothing to say')
})

t.test('examples of README', async t => {
  const examples = [...README.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code!)
  t.ok(examples.length > 0, 'there are some')
  // inside the package, so that they import it by its name
  const work = mkdtempSync(join(ROOT, 'dist', 'readme-'))
  const place = mkdtempSync(join(tmpdir(), 'readme-'))
  t.teardown(() => {
    rmSync(work, { recursive: true })
    rmSync(place, { recursive: true })
  })
  const [source, mountpoint] = [join(place, 'source'), join(place, 'mount')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  examples.forEach((code, i) => writeFileSync(join(work, `example${i}.ts`), code.replaceAll('/srv/shared', source).replaceAll('/mnt/shared', mountpoint)))
  writeFileSync(join(work, 'tsconfig.json'), JSON.stringify({
    compilerOptions: { target: 'es2023', lib: ['es2023'], types: ['node'], module: 'nodenext', strict: true, skipLibCheck: true },
  }))
  const compiled = await run(process.execPath, [join(ROOT, 'node_modules/typescript/lib/tsc.js'), '-p', work]).catch((error: { stdout: string, stderr: string }) => error)
  t.strictSame([compiled.stdout, compiled.stderr], ['', ''], 'they compile')
  if (process.getuid!() !== 0 || !existsSync('/dev/fuse')) {
    t.pass('they run', { skip: 'needs root and /dev/fuse' })
    return
  }
  for (const i of examples.keys()) {
    const { stdout, stderr } = await run(process.execPath, [join(work, `example${i}.js`)], { timeout: 30_000 })
    t.strictSame({ stdout, stderr }, { stdout: 'hello\n', stderr: '' }, `example ${i}`)
  }
  t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), mountpoint, 'nothing is left mounted')
})
