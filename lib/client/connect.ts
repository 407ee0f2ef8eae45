/** From a source to a connected file system. */
import { FuseGetattrIn, FuseInHeader } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { FaultControl } from '../device/faults.js'
import type { ServedDevice } from '../device/serve.js'
import { errnoName, PeerGoneError, UsageError } from '../errors.js'
import { claimDevice } from '../mount/claim.js'
import type { LiveTag } from '../mount/live-tags.js'
import { pollMicroseconds, mountTimeoutMs, ringEntries, type MountOptions } from '../mount/options.js'
import { parseSource } from '../mount/source.js'
import { ConnectedFs } from './connected-fs.js'
import { decodeAttrOut } from './entry-reply.js'
import { NodeTable } from './node.js'
import { Operations } from './operations.js'
import { Permission } from './permission.js'
import { Session } from './session.js'
import { Tree } from './tree.js'

/** Options of a connection: those of a mount that concern the device, and the client's own. */
export interface ConnectOptions extends Pick<MountOptions,
  'tag' | 'socket' | 'backend' | 'virtiofsd' | 'sandbox' | 'queueSize' | 'poll' | 'xattr' | 'posixAcl' | 'xattrmap'
  | 'translateUid' | 'translateGid' | 'allowDirectIo' | 'readonly' | 'mountTimeout' | 'traceJson' | 'defaultPermissions'> {
  /** Timeouts of names and attributes, as virtiofsd's. Data is not cached. */
  cache?: 'auto' | 'always' | 'metadata' | 'never'
  /** Who the device sees; default: this process. */
  uid?: number
  gid?: number
  /** Supplementary groups of that user, for the checks of permissions. */
  groups?: readonly number[]
  /** Taken from the modes of new files; default: that of this process. */
  umask?: number
  /** Requests that may be outstanding at once; more wait. Default 128. */
  maxOutstanding?: number
  /** Names that are remembered at most. Default 4096. */
  maxNames?: number
  /** Faults on demand in the emulated device, for tests of what uses the file system. */
  faults?: FaultControl
}

const DEFAULT_OUTSTANDING = 128
const DEFAULT_NAMES = 4096

/**
 * Connects to a virtio-fs device, with no mount, no root and no /dev/fuse.
 *
 * @param source as for `mount`: a directory, `unix:PATH`, a socket, a tag with `options.socket`, or what `serveDevice` made
 * @returns the shape of node:fs/promises over the device's tree; to be closed
 * @throws UsageError, SyscallError, ProtocolError, PeerGoneError; nothing is left behind then
 *
 * @example
 * const fs = await connect('/srv/shared')
 * await fs.writeFile('/hello.txt', 'hello')
 * console.log(await fs.readFile('/hello.txt', 'utf8'))
 * await fs.close()
 */
export async function connect(source: string | ServedDevice, options: ConnectOptions = {}): Promise<ConnectedFs> {
  const { session, tree, release } = await openTree(source, options)
  return new ConnectedFs(session, tree, release)
}

/** A session with its tree: what `connect` puts its face on. */
export interface OpenTree {
  session: Session
  tree: Tree
  live: LiveTag
  /** Ends the session and gives the tag back. */
  release: () => Promise<void>
}

/** @param counters where requests are counted, a block of lib/driver/counters.ts @throws as `connect` */
export async function openTree(source: string | ServedDevice, options: ConnectOptions, counters?: Float64Array): Promise<OpenTree> {
  const asked: ConnectOptions = typeof source === 'string' || source.tag === undefined ? options : { tag: source.tag, ...options }
  const queueSize = ringEntries(asked.queueSize, 'queueSize')
  const maxOutstanding = asked.maxOutstanding ?? DEFAULT_OUTSTANDING
  if (!(maxOutstanding >= 1)) throw new UsageError(`maxOutstanding is ${maxOutstanding}, expected at least 1`)
  const uid = asked.uid ?? process.getuid!()
  const gid = asked.gid ?? process.getgid!()
  const { transport, live } = await claimDevice(parseSource(source, asked), asked, asked.faults)
  try {
    const session = await Session.open(transport, {
      queueSize, pollUs: pollMicroseconds(asked.poll), timeoutMs: mountTimeoutMs(asked.mountTimeout), maxOutstanding,
      identity: { uid, gid, pid: process.pid }, traceJson: asked.traceJson, counters,
    })
    try {
      return await makeTree(session, live, typeof source === 'string' ? source : source.name, { ...asked, uid, gid })
    } catch (error) {
      await session.close()
      throw error
    }
  } catch (error) {
    live.release()
    throw error
  }
}

async function makeTree(session: Session, live: LiveTag, source: string, options: ConnectOptions & { uid: number, gid: number }): Promise<OpenTree> {
  if (options.faults) await session.transport.poolReady?.()
  const { engine } = session
  // the root is never looked up: what it is has to be asked for
  new Uint8Array(engine.staging.buffer).fill(0, FuseInHeader.SIZE, FuseInHeader.SIZE + FuseGetattrIn.SIZE)
  const root = await engine.send(Op.GETATTR, 1, 0, FuseGetattrIn.SIZE, decodeAttrOut)
  if (typeof root === 'number') throw new PeerGoneError(session.gone || `the device does not give the attributes of its root (${errnoName(-root)})`)
  const table = new NodeTable({
    maxNames: options.maxNames ?? DEFAULT_NAMES,
    forget: (low, high, lookups) => engine.forget(low, high, lookups),
  }, root.attributes)
  const groups = options.groups ?? (options.uid === process.getuid!() ? process.getgroups!() : [])
  const permission = new Permission({ uid: options.uid, gid: options.gid, groups }, options.defaultPermissions ?? true)
  const { umask } = options
  const tree = new Tree(new Operations(session), table, permission, umask === undefined ? () => process.umask() : () => umask)
  // a client has no mount point; nothing of it can be shared
  live.describe({ source, mountpoint: '', connection: -1 })
  session.once('gone', () => live.release())
  const release = async (): Promise<void> => {
    table.expireAll()
    await session.close()
    live.release()
  }
  return { session, tree, live, release }
}
