/** A temporary directory served by the passthrough file system, with a client that speaks to it. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defaultOptions, type PassthroughOptions } from '../../lib/device/passthrough/options.js'
import { Passthrough } from '../../lib/device/passthrough/passthrough.js'
import { closePassthrough, openPassthrough, type PassthroughLimits, type PassthroughShared } from '../../lib/device/passthrough/shared.js'
import { FuseClient } from './fuse-client.js'

interface Teardown { teardown(handler: () => void): void }

export interface Served {
  root: string
  shared: PassthroughShared
  client: FuseClient
  device: Passthrough
}

export interface ServeOptions extends Partial<PassthroughOptions> {
  limits?: PassthroughLimits
  /** Flags that INIT offers. */
  flags?: bigint
}

/** Serves a new directory until the test ends. */
export function serve(t: Teardown, { limits, flags, ...options }: ServeOptions = {}): Served {
  const root = options.root ?? mkdtempSync(join(tmpdir(), 'passthrough-'))
  const shared = openPassthrough({ ...defaultOptions, ...options, root }, limits)
  const device = new Passthrough(shared)
  const client = new FuseClient(device)
  t.teardown(() => {
    client.close()
    closePassthrough(shared)
    rmSync(root, { recursive: true, force: true })
  })
  const { error } = client.init(flags)
  if (error !== 0) throw new Error(`INIT: ${error}`)
  return { root, shared, client, device }
}

/** How many descriptors this process has open. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
