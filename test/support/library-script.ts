/** Scripts that use the library, each in a process of its own, on a fresh source and mount point. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { MountOptions } from '../../lib/index.js'
import { peerPath, type Peer } from './peers.js'
import { Program, within } from './program.js'
import { clearMount, kernelStacks } from './stuck.js'

export interface ScriptSettings {
  /** Of test/support, without .js. */
  script: string
  peer: Peer
  nodeOptions?: readonly string[]
  /** Between the mount point and the options. */
  args?: readonly string[]
  timeoutMs: number
}

/** Runs `SCRIPT SOURCE MOUNTPOINT [ARGS...] OPTIONS`; the source holds a file `hello`. @returns what it printed */
export async function runLibraryScript(t: Test, { script, peer, nodeOptions = [], args = [], timeoutMs }: ScriptSettings): Promise<string> {
  const base = mkdtempSync(join(tmpdir(), 'vfb-'))
  const [source, mountpoint] = [join(base, 'src'), join(base, 'mnt')]
  mkdirSync(source)
  mkdirSync(mountpoint)
  writeFileSync(join(source, 'hello'), 'hello\n')
  const path = fileURLToPath(new URL(`./${script}.js`, import.meta.url))
  const options: MountOptions = peer === 'emulated' ? {} : { backend: 'virtiofsd', virtiofsd: peerPath(peer) }
  const command = [process.execPath, ...nodeOptions, path, source, mountpoint, ...args, JSON.stringify(options)]
  const program = new Program(command, { env: { ...process.env, XDG_RUNTIME_DIR: base } })
  try {
    const exit = await within(timeoutMs, program.closed)
    if (!exit) t.comment(kernelStacks([program.pid]))
    t.equal(exit?.code, 0, `ended well${program.stderr ? `: ${program.stderr}` : ''}`)
    return program.stdout
  } finally {
    if (await clearMount(mountpoint)) t.fail('a mount was left, and removed by force')
    await program.kill()
    rmSync(base, { recursive: true })
  }
}
