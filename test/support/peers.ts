/** The devices that tests mount, and why one of them may be missing here. */
import { accessSync, constants, openSync, closeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { close } from '../../lib/sys/io.js'
import { listenUnix } from '../../lib/sys/socket.js'
import { Program } from './program.js'
import { packageRoot } from './vhost-user-session.js'

export type Peer = 'emulated' | 'virtiofsd-rust' | 'virtiofsd-c'
/** Also the emulated device in another process, behind a relay over pipes. */
export type MountPeer = Peer | 'relay'
export const PEERS: readonly Peer[] = ['emulated', 'virtiofsd-rust', 'virtiofsd-c']
export const BACKENDS = ['virtiofsd-rust', 'virtiofsd-c'] as const

/** The command, as its users start it. */
export const BRIDGE: readonly string[] = [process.execPath, fileURLToPath(new URL('../../command/virtiofs-bridge.js', import.meta.url))]

/** Where peers.sh puts a program. */
export function peerPath(name: string): string {
  return join(packageRoot(), '.peers', name)
}

/** Why nothing can be mounted here, or false. */
export function noKernel(): string | false {
  if (process.getuid!() !== 0) return 'not root: mount(2) is not allowed'
  try {
    closeSync(openSync('/dev/fuse', 'r+'))
    return false
  } catch (error) {
    return `no usable /dev/fuse (${(error as NodeJS.ErrnoException).code})`
  }
}

/** Why this peer cannot be mounted here, or false: for the `skip` of a test. */
export function missing(peer: MountPeer): string | false {
  const reason = noKernel()
  if (reason || peer === 'emulated' || peer === 'relay') return reason
  try {
    accessSync(peerPath(peer), constants.X_OK)
    return false
  } catch {
    return `no .peers/${peer} (bash test/support/peers.sh, as root on Debian)`
  }
}

/** What npm says where it cannot reach its registry. */
export const NO_REGISTRY = /E(NOTFOUND|CONNREFUSED|TIMEDOUT|NETUNREACH|AI_AGAIN)/

/** Why a program is not to be had here, or false. */
export function noProgram(name: string): string | false {
  for (const dir of (process.env['PATH'] ?? '').split(':')) {
    try {
      accessSync(join(dir, name), constants.X_OK)
      return false
    } catch {
      continue
    }
  }
  return `no program ${name}`
}

/** The source that is a directory, or another source, served by a relay over pipes. @param options for its -o */
export function relaySource(source: string, options: readonly string[] = []): string {
  // tap's hooks are not for it
  return `exec:env -u NODE_OPTIONS ${[...BRIDGE, 'relay', source, ...options.length > 0 ? ['-o', options.join(',')] : []].map(word => `'${word}'`).join(' ')}`
}

/** Starts a virtiofsd that listens at `socket` from the beginning. @param args beyond socket and directory */
export function startBackend(peer: Exclude<Peer, 'emulated'>, directory: string, socket: string, args: readonly string[] = []): Program {
  const listener = listenUnix(socket)
  const directoryArgs = peer === 'virtiofsd-c' ? ['-o', `source=${directory}`] : [`--shared-dir=${directory}`]
  try {
    return new Program([peerPath(peer), '--fd=3', ...directoryArgs, ...args], { fds: [listener] })
  } finally {
    close(listener)
  }
}
