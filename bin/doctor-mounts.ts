/** The doctor's look at the mounts that are there. */
import { findMounts, type FoundMount } from '../lib/control/find-mounts.js'
import { errorLine } from '../lib/errors.js'
import { unmountError, unmountPath } from '../lib/mount/dev-fuse.js'
import { MNT_DETACH } from '../lib/mount/flags.js'
import { type Finding, finding, ok } from './doctor-report.js'

/** @param fix unmount what is dead */
export async function lookAtMounts(fix: boolean): Promise<Finding[]> {
  const all = await findMounts()
  const unwell = (await Promise.all(all.map(mount => lookAtMount(mount, fix)))).filter(found => found !== undefined)
  return unwell.length > 0 ? unwell : [ok('mounts', all.length === 0 ? 'none' : `${all.length}, all well`)]
}

async function lookAtMount(mount: FoundMount, fix: boolean): Promise<Finding | undefined> {
  const { health, mountpoints: [place = '(detached)'], source, pid } = mount
  const check = `mount ${place}`
  switch (health) {
    case 'dead': return fix ? await clear(mount, check) : finding(check, 'problem', `dead: the process that served ${source} has ended`, `virtiofs-bridge umount ${place}, or doctor --fix`)
    case 'gone': return finding(check, 'problem', `the device has gone: ${mount.reason}`, `virtiofs-bridge umount ${place}`)
    case 'waiting': return mount.supervisor && mount.uptimeSeconds === undefined
      ? finding(check, 'problem', mount.reason ?? '', `virtiofs-bridge umount ${place}, if it stays so`)
      : finding(check, 'problem', `operations wait for the device: ${mount.reason}`, `start the backend again, or virtiofs-bridge umount ${place}`)
    case 'silent': return finding(check, 'problem', `process ${pid ?? '(unknown)'} does not answer`, `virtiofs-bridge umount --abort ${place}`)
    default: return undefined
  }
}

/** Nobody can use it any more, so nobody is harmed. */
async function clear({ mountpoints }: FoundMount, check: string): Promise<Finding> {
  for (const path of mountpoints) {
    const error = await unmountPath(path, MNT_DETACH)
    if (error < 0) return finding(check, 'problem', `dead, and ${errorLine(unmountError(path, error))}`, 'unmount it as root')
  }
  return ok(check, 'was dead: unmounted')
}
