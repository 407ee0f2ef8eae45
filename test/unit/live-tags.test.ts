import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { LiveTag } from '../../lib/mount/live-tags.js'

t.test('a tag whose file was taken away', async t => {
  const before = process.env['XDG_RUNTIME_DIR']
  const directory = process.env['XDG_RUNTIME_DIR'] = mkdtempSync(join(tmpdir(), 'vfb-tags-'))
  t.teardown(() => {
    if (before === undefined) delete process.env['XDG_RUNTIME_DIR']
    else process.env['XDG_RUNTIME_DIR'] = before
    rmSync(directory, { recursive: true, force: true })
  })
  const files = (): string[] => readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('/shared'))
  const first = await LiveTag.claim('shared')
  t.equal(files().length, 1)
  rmSync(join(directory, files()[0]!))
  const second = await LiveTag.claim('shared')
  first.release()
  t.equal(files().length, 1, 'the other mount of that tag keeps its own')
  rmSync(directory, { recursive: true })
  second.release()
  second.release()
})
