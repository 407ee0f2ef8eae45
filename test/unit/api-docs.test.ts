/** The documentation of the API: every example in a docstring compiles and runs. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import t from 'tap'
import * as library from '../../lib/index.js'
import { noKernel, NO_REGISTRY } from '../support/peers.js'
import { run, runToEnd } from '../support/program.js'
import { packageRoot } from '../support/vhost-user-session.js'

const ROOT = packageRoot()

interface Example {
  name: string
  code: string
}

/** The code after each `@example` of a source file, up to the next tag or the end of the comment. */
function examplesOf(path: string): Example[] {
  const text = readFileSync(join(ROOT, path), 'utf8')
  return [...text.matchAll(/^ *\/\*\*.*?\*\//gms)].flatMap(([comment]) => {
    const line = text.slice(0, text.indexOf(comment)).split('\n').length
    const lines = comment.split('\n').map(each => each.replace(/^ *(\/\*\*|\*\/|\* ?)/, ''))
    return lines.join('\n').split(/^@example\n/m).slice(1).map(part => ({ name: `${path}:${line}`, code: part.split(/^@\w/m)[0]! }))
  })
}

const sources = readdirSync(join(ROOT, 'lib'), { recursive: true }).map(name => `lib/${String(name)}`).filter(name => name.endsWith('.ts')).sort()
const examples = sources.flatMap(examplesOf)

/** What an example may use without saying where it is from. */
const PRELUDE = `import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, unlink, writeFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { ${Object.keys(library).join(', ')}, type Attributes, type Entry } from 'virtiofs-bridge'

`

t.test('the important parts have an example', async t => {
  const all = examples.map(({ code }) => code).join('\n')
  for (const name of ['mount(', 'withMount(', 'connect(', 'serveDevice(', 'new FaultControl(', 'extends FileSystem', '.watch(', '.stats(']) t.ok(all.includes(name), name)
})

t.test('every example compiles and runs', async t => {
  // inside the package, so that they import it by its name
  const work = mkdtempSync(join(ROOT, 'dist', 'api-docs-'))
  const place = mkdtempSync(join(tmpdir(), 'api-docs-'))
  t.teardown(() => {
    rmSync(work, { recursive: true })
    rmSync(place, { recursive: true })
  })
  for (const name of ['memfs.js', 'sparse-file.js']) symlinkSync(join(ROOT, 'dist/examples', name), join(work, name))
  const files = examples.map(({ code, name }, i) => {
    const [source, mountpoint] = [join(place, `source${i}`), join(place, `mount${i}`)]
    for (const path of [source, mountpoint]) mkdirSync(path)
    writeFileSync(join(work, `example${i}.ts`), (PRELUDE + code).replaceAll('/srv/shared', source).replaceAll('/mnt/shared', mountpoint))
    return { name, script: join(work, `example${i}.js`) }
  })
  writeFileSync(join(work, 'tsconfig.json'), JSON.stringify({
    compilerOptions: { target: 'es2023', lib: ['es2023', 'esnext.disposable'], types: ['node'], module: 'nodenext', strict: true, skipLibCheck: true, noImplicitOverride: true },
  }))
  const compiled = await runToEnd([process.execPath, join(ROOT, 'node_modules/typescript/lib/tsc.js'), '-p', work])
  t.equal(compiled.stdout, '', 'they compile')
  const reason = noKernel()
  if (reason) {
    t.pass('they run', { skip: reason })
    return
  }
  for (const { name, script } of files) {
    const ran = await runToEnd([process.execPath, script], { timeoutMs: 30_000, cwd: work })
    t.match(ran, { exit: { code: 0 }, stderr: '' }, name)
  }
  t.notMatch(readFileSync('/proc/self/mountinfo', 'utf8'), basename(place), 'nothing is left mounted')
})

const typedoc = join(ROOT, 'docs/node_modules/typedoc/bin/typedoc')

t.test('npm run docs', async t => {
  if (!existsSync(typedoc)) {
    const installed = await runToEnd(['npm', 'ci', '--prefix', join(ROOT, 'docs'), '--prefer-offline', '--no-audit', '--no-fund'], { timeoutMs: 150_000 })
    if (NO_REGISTRY.test(installed.stderr)) return void t.pass('typedoc', { skip: `no registry to install it from: ${installed.stderr.split('\n')[0]}` })
    t.match(installed, { exit: { code: 0 } }, installed.stderr)
  }
  const out = mkdtempSync(join(tmpdir(), 'api-docs-'))
  t.teardown(() => rmSync(out, { recursive: true }))
  await run([process.execPath, typedoc, '--options', join(ROOT, 'docs/typedoc.json'), '--json', join(out, 'api.json')], { cwd: join(ROOT, 'docs'), timeoutMs: 240_000 })
  const { children } = JSON.parse(readFileSync(join(out, 'api.json'), 'utf8')) as { children: { name: string }[] }
  const names = children.map(({ name }) => name)
  for (const name of Object.keys(library)) t.ok(names.includes(name), name)
})
