/** What `npm pack` makes: what is in it, that it works where nothing else is, and that its types resolve. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { noKernel, NO_REGISTRY } from '../support/peers.js'
import { run, runToEnd } from '../support/program.js'
import { packageRoot } from '../support/vhost-user-session.js'

interface Manifest {
  version: string
  license: string
  engines: Record<string, string>
  man: [string]
  bin: Record<string, string>
  exports: Record<string, { types: string, default: string }>
  dependencies: Record<string, string>
}

const ROOT = packageRoot()
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest

/** Sources below a directory, by their paths from the root. */
function sources(directory: string, ending = '.ts'): string[] {
  return readdirSync(join(ROOT, directory), { recursive: true }).map(name => `${directory}/${String(name)}`).filter(name => name.endsWith(ending))
}

function compiled(directory: string, ending: string): string[] {
  return sources(directory).map(name => `dist/${name.replace(/\.ts$/, ending)}`)
}

/** Packs, without building: this is being tested. */
async function pack(destination: string): Promise<{ file: string, contents: string[] }> {
  const printed = await run(['npm', 'pack', '--ignore-scripts', '--json', '--pack-destination', destination], { cwd: ROOT })
  const [packed] = JSON.parse(printed) as [{ filename: string, files: { path: string }[] }]
  return { file: join(destination, packed.filename), contents: packed.files.map(({ path }) => path) }
}

t.test('npm pack', async t => {
  const place = mkdtempSync(join(tmpdir(), 'pack-'))
  t.teardown(() => rmSync(place, { recursive: true }))
  if (!existsSync(join(ROOT, manifest.man[0]))) await run([process.execPath, join(ROOT, 'dist/docs/manual.js')])
  const { file, contents } = await pack(place)

  t.strictSame(contents.sort(), [
    'CHANGELOG.md', 'LICENSE', 'README.md', 'docs/output.md', 'package.json', manifest.man[0], ...sources('examples'), ...sources('native-notes', '.md'),
    ...readdirSync(join(ROOT, 'dist/command')).map(name => `dist/command/${name}`), ...compiled('examples', '.js'), ...compiled('lib', '.js'), ...compiled('lib', '.d.ts'),
  ].sort(), 'everything that it should have, and nothing else')
  t.match(readFileSync(join(ROOT, 'LICENSE'), 'utf8'), /^MIT License/)
  t.match(manifest, { license: 'MIT', engines: { node: '>=20' } })
  const { '.': entry } = manifest.exports
  for (const path of [entry!.types, entry!.default, ...Object.values(manifest.bin), manifest.man[0]]) t.ok(contents.includes(path.replace('./', '')), `${path} is there`)

  // an empty directory, and nothing of this one in reach
  const empty = join(place, 'empty')
  mkdirSync(empty)
  writeFileSync(join(empty, 'package.json'), '{ "name": "user", "private": true, "type": "module" }')
  const installed = await runToEnd(['npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', file], { cwd: empty, timeoutMs: 150_000 })
  if (NO_REGISTRY.test(installed.stderr)) {
    t.comment(`no registry to install from: ${installed.stderr.split('\n')[0]}`)
    return
  }
  t.match(installed, { exit: { code: 0 } }, installed.stderr)
  const command = join(empty, 'node_modules/.bin/virtiofs-bridge')
  t.equal(await run([command, '--version'], { cwd: empty }), `${manifest.version}\n`)

  const source = join(empty, 'source')
  mkdirSync(source)
  writeFileSync(join(source, 'hello'), 'from the package\n')
  t.match(JSON.parse(await run([command, 'probe', source, '--json'], { cwd: empty })), { tag: 'source' }, 'its system calls work')
  const script = 'import { connect } from "virtiofs-bridge"; const fs = await connect("source"); console.log((await fs.readFile("/hello", "utf8")).trim()); await fs.close()'
  t.equal(await run([process.execPath, '--input-type=module', '-e', script], { cwd: empty }), 'from the package\n')
  if (noKernel() === false) {
    const mountpoint = join(empty, 'mountpoint')
    mkdirSync(mountpoint)
    await run([command, source, mountpoint], { cwd: empty })
    try {
      t.equal(readFileSync(join(mountpoint, 'hello'), 'utf8'), 'from the package\n')
    } finally {
      await run([command, 'umount', mountpoint], { cwd: empty })
    }
  }

  mkdirSync(join(empty, 'node_modules/@types'))
  for (const name of ['@types/node', 'undici-types']) symlinkSync(join(ROOT, 'node_modules', name), join(empty, 'node_modules', name))
  writeFileSync(join(empty, 'user.ts'), USER)
  for (const [module, moduleResolution] of [['node16', 'node16'], ['nodenext', 'nodenext'], ['preserve', 'bundler']] as const) {
    const options = { target: 'es2023', lib: ['es2023', 'esnext.disposable'], types: ['node'], module, moduleResolution, strict: true, noEmit: true, skipLibCheck: false }
    writeFileSync(join(empty, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['user.ts'] }))
    const checked = await runToEnd([process.execPath, join(dirname(join(ROOT, 'node_modules/typescript/package.json')), 'lib/tsc.js'), '-p', empty], { cwd: empty })
    t.match(checked, { exit: { code: 0 }, stdout: '' }, `types under ${moduleResolution}`)
  }
})

/** Uses the types: a wrong one would be an error. */
const USER = `import { connect, FileSystem, FuseError, mount, withMount, type Mount, type MountOptions, type MountStats, type MountStatus } from 'virtiofs-bridge'

export const options: MountOptions = { xattr: true, cache: 'auto' }
export async function use(): Promise<string> {
  const mounted: Mount = await mount({ source: '/srv', mountpoint: '/mnt', options })
  const status: MountStatus = mounted.status()
  const stats: MountStats = mounted.stats()
  // @ts-expect-error no such option
  await mount({ source: '/srv', mountpoint: '/mnt', options: { glub: true } })
  const size: number = await withMount('/srv', async (dir, { faults }) => {
    faults.failNext('OPEN', 'EIO')
    return dir.length
  })
  const fs = await connect('/srv')
  const text: string = await fs.readFile('/a', 'utf8')
  await fs.close()
  return status.tag + stats.requestQueues + size + text
}

export class Mine extends FileSystem {
  override lookup(): never {
    throw new FuseError('ENOENT')
  }
}
`
