/** native-notes say what the code does: structures with their sizes, system calls, flags of INIT. */
import t from 'tap'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { FUSE_INIT_FLAGS, FuseInHeader, FuseInitIn } from '../../lib/fuse/abi.js'
import { adaptInitRequest, initFlagNames } from '../../lib/fuse/init.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))

function sources(directory: string): string[] {
  return readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts')).map(name => readFileSync(join(ROOT, directory, name), 'utf8'))
}

/** Lines of a Markdown file that are rows of a table, as their cells; headings of tables left out. */
function tableRows(file: string): string[][] {
  const lines = readFileSync(join(ROOT, file), 'utf8').split('\n')
  return lines.filter((line, i) => line.startsWith('|') && !line.startsWith('|---') && !lines[i + 1]?.startsWith('|---'))
    .map(line => line.split('|').slice(1, -1).map(cell => cell.trim()))
}

t.test('structures of abi.md are those that are declared, with the same sizes', async t => {
  const declared = sources('lib').flatMap(text => [...text.matchAll(/= defineStruct\('(\w+)', (\d+),/g)].map(([, name, size]) => `${name} ${size}`))
  const written = tableRows('native-notes/abi.md').filter(([, size, where]) => /^\d+$/.test(size!) && !/passthrough|sys\/(io|limits|dir|credentials)/.test(where!))
    .map(([name, size]) => `${name} ${size}`)
  t.ok(declared.length > 60, 'the declarations were found')
  t.strictSame(written.sort(), declared.sort())
})

t.test('system calls of syscalls.md are those that lib/sys binds', async t => {
  const bound = new Set(sources('lib/sys').flatMap(text => [...text.matchAll(/bind(?:Async)?\('\w+ (\w+)\(/g)].map(([, name]) => name!)))
  t.ok(bound.size > 50, 'the calls were found')
  const numbers = readFileSync(join(ROOT, 'lib/sys/credentials.ts'), 'utf8').match(/interface Numbers \{(.*?)\}/)![1]!
  for (const [, name] of numbers.matchAll(/(\w+): number/g)) bound.add(name!)
  for (const text of sources('lib/sys')) for (const [, name] of text.matchAll(/^const SYS_(\w+) = \d+/gm)) bound.add(name!.toLowerCase())
  const written = new Set(tableRows('native-notes/syscalls.md').flatMap(([calls]) => calls!.replace(/\([^)]*\)/g, '').split(',').map(call => call.trim())))
  t.strictSame([...written].sort(), [...bound].sort())
})

t.test('numbers of system calls', async t => {
  const text = readFileSync(join(ROOT, 'lib/sys/credentials.ts'), 'utf8')
  const [arm64, x64] = [...text.matchAll(/[?:] \{ (setfsuid: .*?) \}/g)].map(([, list]) =>
    Object.fromEntries(list!.split(', ').map(pair => pair.split(': ')))) as [Record<string, string>, Record<string, string>]
  const written = tableRows('native-notes/syscalls.md').filter(cells => /^\d+$/.test(cells[1]!))
  t.strictSame(Object.fromEntries(written.filter(([name]) => name !== 'faccessat2').map(([name, number]) => [name, number])), x64)
  t.strictSame(Object.fromEntries(written.filter(([name]) => name !== 'faccessat2').map(([name, , number]) => [name, number])), arm64)
})

t.test('flags of fuse-init.md are relayed or not as it says', async t => {
  const relayed = (defaultPermissions: boolean): Set<string> => {
    const view = new DataView(new ArrayBuffer(FuseInHeader.SIZE + FuseInitIn.SIZE))
    const arg = FuseInHeader.SIZE
    view.setUint32(arg + FuseInitIn.flags, 0xffff_ffff, true)
    view.setUint32(arg + FuseInitIn.flags2, 0xffff_ffff, true)
    adaptInitRequest(view, 0, { maxWrite: 1 << 20, maxBackground: 28, defaultPermissions, passthrough: false })
    return new Set(initFlagNames(view.getUint32(arg + FuseInitIn.flags, true), view.getUint32(arg + FuseInitIn.flags2, true)))
  }
  const [withPermissions, without] = [relayed(true), relayed(false)]
  const rows = tableRows('native-notes/fuse-init.md').filter(([bit]) => /^\d+$/.test(bit!))
  t.strictSame(Object.fromEntries(rows.map(([bit, name]) => [name, Number(bit)])), FUSE_INIT_FLAGS, 'every flag, at its bit')
  for (const [, name, what] of rows) {
    const expected = withPermissions.has(name!) ? without.has(name!) ? 'relayed' : 'with default_permissions' : 'never'
    t.equal(what!.split(':')[0], expected, name)
  }
})
