/** The table of checks on every kind of mount: see mounts.ts for these, table.ts for those. */
import { accessSync, constants, rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import { makeDirectory, mountDirectory } from '../support/posix-mount.js'
import { relaySource } from '../support/peers.js'
import { runChecks } from '../support/posix-run.js'
import { kinds, type Kind } from './mounts.js'
import type { CheckResult } from './run-checks.js'
import { table } from './table.js'

function fuseMissing(): string | false {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    return false
  } catch {
    return 'no access to /dev/fuse here'
  }
}

function reasonFor(reasons: Kind['exceptions'], name: string): string | undefined {
  return Object.entries(reasons).find(([start]) => name.startsWith(start))?.[1]
}

function judge(t: Test, { exceptions, races = {} }: Kind, { name, cites, ok, skip, error, ms }: CheckResult): void {
  const race = reasonFor(races, name)
  if (race !== undefined) return void t.test(name, { skip: race }, async () => {})
  const exception = reasonFor(exceptions, name)
  if (exception !== undefined) {
    if (ok && !skip) t.fail(`${name}: holds, and is listed as an exception: ${exception}`)
    else void t.test(name, { skip: exception }, async () => {})
    return
  }
  void t.test(name, { skip: skip ?? false }, async t => {
    if (ok) t.pass(`${cites} (${ms.toFixed(0)} ms)`)
    else t.fail(error!, { cites })
  })
}

async function onKind(t: Test, kind: Kind): Promise<void> {
  const { parent, options, relay } = kind
  let run = 0
  const result = (one: CheckResult): void => {
    run++
    judge(t, kind, one)
  }
  if (options === undefined) {
    const directory = makeDirectory(parent)
    await runChecks(directory, { result })
    rmSync(directory, { recursive: true })
  } else {
    const mount = await mountDirectory(parent, options, relay ? relaySource : undefined)
    try {
      await runChecks(mount.mountpoint, { backing: mount.backing, stuck: mount.abort, result })
    } finally {
      await mount.end()
    }
  }
  t.ok(run >= table.length, `all ${table.length} checks were run`)
}

/** POSIX_KINDS: those whose name has this text; default: all but the further ones. */
const wanted = process.env['POSIX_KINDS']

for (const kind of kinds) {
  if (wanted === undefined ? kind.further : !kind.name.includes(wanted)) continue
  void t.test(kind.name, { skip: kind.options === undefined ? false : fuseMissing() }, async t => await onKind(t, kind))
}
