/**
 * Runs the compiled tests of @zenfs/core (see run.sh) on one peer, and compares what fails with what
 * is known to fail, each with its reason. Exit status 1 for any other failure, and for one that is
 * known and does not happen.
 *
 *   node dist/test/zenfs/check.js DIRECTORY [PEER]
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'

/** Names of tests, and why they cannot pass. Further ones are switched off by flags: see setup.ts. */
const EXCLUDED: Record<string, string> = {
  'rename': 'wants "/foo" in the error of a call that was given "foo"; node:fs gives paths back as they were given',
  'link': 'the same',
  'mkdir follows symlinks for intermediate components': 'wants ENOTDIR for a directory below a dangling link; node:fs of Node 20 says ENOENT',
  'cpSync preserves a symlink #304': 'a synchronous call, without the flag for it',
  'open file with mode "r"': 'wants the descriptor number of a FileHandle; a device has none',
  'open file with mode "rs"': 'the same',
  'stat callback with throwIfNoEntry: false': 'wants the callbacks of node:fs',
  'readdir returns Dirent recursively': 'wants "/test-dir" as the parent of what was found in "test-dir"; node:fs gives paths back as they were given',
  'mkdtempDisposable': 'not in node:fs/promises of Node 20',
}

const [directory = '', peer = 'emulated'] = process.argv.slice(2)
const files = readdirSync(join(directory, 'built/fs')).filter(name => name.endsWith('.test.js')).map(name => join('fs', name))
let passed = 0
let skipped = 0
const failed = new Set<string>()
let broken = false

for (const file of files) {
  const child = spawn(process.execPath, ['--test-reporter=tap', '--test', file], {
    cwd: join(directory, 'built'), stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, PEER: peer, ZENFS_DATA: join(directory, 'tests/data'), SETUP: fileURLToPath(new URL('./setup.js', import.meta.url)) },
  })
  let tap = ''
  for await (const chunk of child.stdout) tap += chunk
  let last: { name: string, file: boolean } | undefined
  for (const line of tap.split('\n')) {
    const result = /^( *)(not ok|ok) \d+ - (.*?)( # .*)?$/.exec(line)
    if (result) last = { name: result[3]!.replaceAll('\\#', '#'), file: result[3]!.endsWith('.js') }
    if (result && result[2] === 'ok' && !last!.file) / # SKIP/i.test(line) ? skipped++ : passed++
    const kind = /^ *failureType: '(.*)'/.exec(line)?.[1]
    if (!kind || kind === 'subtestsFailed' || !last) continue
    if (last.file) {
      console.log(`${file}: ${kind}\n${tap}`)
      broken = true
    } else {
      failed.add(last.name)
      if (!(last.name in EXCLUDED)) console.log(`${file}: ${last.name}: failed\n${tap.slice(tap.indexOf(`- ${last.name}`)).slice(0, 2000)}`)
    }
  }
}

for (const [name, reason] of Object.entries(EXCLUDED)) console.log(`${failed.has(name) ? 'excluded' : 'PASSES NOW'}: ${name}: ${reason}`)
const unexpected = [...failed].filter(name => !(name in EXCLUDED))
const stale = Object.keys(EXCLUDED).filter(name => !failed.has(name))
console.log(`${peer}: ${passed} passed, ${unexpected.length} failed, ${failed.size - unexpected.length} excluded by name, ${skipped} by flags`)
process.exitCode = broken || unexpected.length > 0 || stale.length > 0 ? 1 : 0
