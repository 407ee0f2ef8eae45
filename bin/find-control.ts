/** The control socket of the mount that an argument names. */
import { ControlClient } from '../lib/control/client.js'
import { findMountBy, type FoundMount } from '../lib/control/find-mounts.js'
import { UsageError } from '../lib/errors.js'
import { noMount } from './no-mount.js'

const WHY: Partial<Record<FoundMount['health'], string>> = {
  dead: 'its process has ended', silent: 'its process does not answer', library: 'a program serves it that has no control socket', foreign: 'it is another user\'s',
}

/** @param target a mount point or a tag @throws UsageError when there is nobody to ask */
export async function connectToMount(target: string): Promise<{ client: ControlClient, mount: FoundMount }> {
  const mount = await findMountBy(target)
  if (!mount) throw noMount(target)
  if (mount.socket === undefined) throw new UsageError(`${target} cannot be asked: ${WHY[mount.health] ?? mount.health}`, 'ENOTCONN')
  return { client: await ControlClient.connect(mount.socket), mount }
}
