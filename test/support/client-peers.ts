/** The devices that tests connect to with no mount, and why one of them may be missing here. */
import { accessSync, constants } from 'node:fs'
import type { ConnectOptions } from '../../lib/index.js'
import { peerPath } from './peers.js'

export type ClientPeer = 'emulated' | 'virtiofsd-rust' | 'virtiofsd-c'
export const CLIENT_PEERS: readonly ClientPeer[] = ['emulated', 'virtiofsd-rust', 'virtiofsd-c']

/** Options that choose a device over the directory that is given as the source. */
export function findPeer(peer: ClientPeer): ConnectOptions {
  if (peer === 'emulated') return {}
  return { backend: 'virtiofsd', virtiofsd: peerPath(peer), ...(peer === 'virtiofsd-rust' ? { sandbox: 'none' } : {}) }
}

/** Why this peer cannot be had here, or false: for the `skip` of a test. */
export function missingPeer(peer: ClientPeer): string | false {
  if (peer === 'emulated') return false
  if (process.getuid!() !== 0) return 'not root: virtiofsd could not act as others'
  try {
    accessSync(peerPath(peer), constants.X_OK)
    return false
  } catch {
    return `no .peers/${peer} (bash test/support/peers.sh, as root on Debian)`
  }
}
