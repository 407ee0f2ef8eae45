/** Mounting on the host: from what is asked for to a device, and where it is mounted. */
import type { FaultControl } from '../device/faults.js'
import type { ServedDevice } from '../device/serve.js'
import { AwayTransport } from '../driver/away-transport.js'
import type { ReplacementTarget, Transport } from '../driver/transport.js'
import { WorkerHandle } from '../driver/worker-handle.js'
import { UsageError } from '../errors.js'
import { RelaySession } from '../relay/relay-session.js'
import { absoluteOptions, absoluteSource } from './absolute.js'
import { claimDevice } from './claim.js'
import { KernelMount } from './dev-fuse.js'
import { probeDevice } from './device.js'
import { type GivenMount, givenFd, givenNotices, takeGivenFd } from './given-fd.js'
import { Guard } from './guard.js'
import type { Mount } from './live-mount.js'
import { LiveTag } from './live-tags.js'
import { keepsCpusAwake } from './low-latency.js'
import { mountDevice } from './mount-device.js'
import { prepareMountpoint, refuseInsideSource } from './mountpoint.js'
import { letsOthersIn, pollMicroseconds, mountTimeoutMs, ringEntries, type MountOptions } from './options.js'
import { readAhead } from './read-ahead.js'
import { backendName, parseSource, type Source } from './source.js'
import { checkSupervise, type Inherited, type Supervision, waitsForDevice } from './supervision.js'

export { Mount, type UnmountOptions } from './live-mount.js'

export interface MountRequest {
  /** A directory, `unix:PATH`, a socket, or a tag with `options.socket`. */
  source: string
  mountpoint: string
  options?: MountOptions
  /** Faults on demand in the emulated device, for tests of what uses the mount. */
  faults?: FaultControl
}

/** The same for a file system in TypeScript. */
export interface ServedMountRequest extends Omit<MountRequest, 'source'> {
  source: ServedDevice
}

/** Of a device behind a long line, which is full only with many large requests in flight. */
const REMOTE_LARGE_BUFFERS = 64

function checkRights(options: MountOptions, given: GivenMount | undefined): { allowOther: boolean, defaultPermissions: boolean } {
  if (given?.entry) {
    const { allowOther, defaultPermissions, entry } = given
    if (allowOther && !defaultPermissions && options.defaultPermissions !== false) {
      throw new UsageError(`${entry.mountpoint} was mounted with allow_other and without default_permissions: nobody would check permissions (no_default_permissions if that is meant)`)
    }
    return { allowOther, defaultPermissions }
  }
  return { allowOther: letsOthersIn(options), defaultPermissions: options.defaultPermissions ?? true }
}

function checkOnDisconnect({ kind }: Source, { onDisconnect, backend, queues }: MountOptions): void {
  if (onDisconnect !== 'wait') return
  if (kind !== 'socket' && kind !== 'remote' && backend === undefined) throw new UsageError('on_disconnect=wait needs a backend in another process: the emulated device goes only with the mount')
  if (queues !== undefined && queues > 1) throw new UsageError('on_disconnect=wait goes with one request queue')
}

/** Where a backend is to be found again. */
function lastSource(source: Source, tag: string, { socket }: ReplacementTarget): Source {
  return source.kind === 'socket' && socket !== undefined ? { ...source, path: socket, tag } : { ...source, tag }
}

/**
 * Mounts a virtio-fs device on the host. The mount is usable when this resolves, also by
 * synchronous calls of this process: requests are served by threads of their own.
 *
 * @throws UsageError, SyscallError, ProtocolError, PeerGoneError; nothing is left behind then
 *
 * @example
 * const mounted = await mount({ source: '/srv/shared', mountpoint: '/mnt/shared', options: { xattr: true } })
 * mounted.on('gone', reason => console.error(`the device is gone: ${reason}`))
 * await writeFile('/mnt/shared/hello.txt', 'hello')
 * await mounted.unmount()
 */
export async function mount(request: MountRequest | ServedMountRequest): Promise<Mount> {
  if (request.options?.supervise) throw new UsageError('option supervise is for the command: a program that is killed has no other to go on')
  return await mountUnder(request, undefined)
}

/** @param supervision of the process that goes on when this one is killed; with a mount to go on with itself, perhaps */
export async function mountUnder(request: MountRequest | ServedMountRequest, supervision: Supervision | undefined): Promise<Mount> {
  if (request.options?.via === 'fuse-native') return await (await import('../fuse-native/fuse-native-mount.js')).mountByFuseNative(request)
  const { source: from, mountpoint, faults } = request
  const asked = absoluteOptions(request.options ?? {})
  const source = typeof from === 'string' ? absoluteSource(from, asked) : from.name
  const options = typeof from === 'string' || from.tag === undefined ? asked : { tag: from.tag, ...asked }
  const named = parseSource(from, options)
  const parsed = named.kind === 'remote' && options.onDisconnect === 'wait' ? { ...named, session: new RelaySession() } : named
  const fd = givenFd(mountpoint)
  const given = fd === undefined ? undefined : takeGivenFd(fd)
  const inherited = supervision?.inherited
  const target = inherited ? { path: inherited.live.mountpoint, mode: 0 } : given ? { path: given.entry?.mountpoint ?? mountpoint, mode: 0 } : await prepareMountpoint(mountpoint)
  if (!inherited) refuseInsideSource(target.path, parsed, options)
  const rights = checkRights(options, given)
  const queueSize = ringEntries(options.queueSize)
  if (options.audit !== undefined && options.direct) throw new UsageError('options audit and direct exclude each other: with direct, nobody here sees what is read and written')
  if (options.autoUnmount && given) throw new UsageError('option auto_unmount does not go with a mount point /dev/fd/N: whoever mounted it unmounts it')
  checkOnDisconnect(parsed, options)
  if (supervision) checkSupervise(parsed, mountpoint, options)
  const waits = waitsForDevice(parsed, options)
  // as it is, also on a mount that somebody else has made
  const deviceOptions = { ...options, defaultPermissions: rights.defaultPermissions }
  const worker = new WorkerHandle(0)
  const claimed = inherited ? inheritDevice(parsed, deviceOptions, inherited, waits) : claimDevice(parsed, deviceOptions, faults)
  const { transport, live } = await claimed.catch(async error => {
    await worker.end().catch(() => {})
    throw error
  })
  let { replaced = {} } = inherited ?? {}
  const mounted = await mountDevice({
    source, backend: backendName(parsed, options), transport, live, worker, init: { defaultPermissions: rights.defaultPermissions, passthrough: options.direct ?? false },
    queues: options.queues ?? 1,
    queueSize,
    ...parsed.kind === 'remote' && { largeBuffers: REMOTE_LARGE_BUFFERS },
    readAhead: readAhead(options.readahead, parsed.kind === 'remote'),
    // what another host answers takes longer than any poll, and ssh needs the processor meanwhile
    pollUs: pollMicroseconds(options.poll ?? (parsed.kind === 'remote' ? 'off' : 'auto')),
    lowLatency: options.lowLatency ?? (parsed.kind !== 'remote' && keepsCpusAwake()),
    timeoutMs: mountTimeoutMs(options.mountTimeout),
    requestLimitMs: options.timeout === undefined ? undefined : options.timeout * 1000,
    reach: waits ? async ({ socket = replaced.socket, virtiofsd = replaced.virtiofsd }, signal) => await probeDevice(lastSource(parsed, live.tag, { socket }), { ...deviceOptions, ...virtiofsd !== undefined && { virtiofsd } }, undefined, signal) : undefined,
    traceJson: options.traceJson,
    waitForPool: faults !== undefined,
    idleTimeout: options.idleTimeout,
    audit: options.audit,
    faults,
    notices: given ? givenNotices(given) : [],
    ...supervision && {
      supervision, survival: { stateFd: supervision.stateFd, failed: reason => supervision.failed(reason), ...inherited && { init: inherited.init } },
      handOver: (facts, kernel) => supervision.handOver({ ...facts, live: live.described }, kernel.fuseFds[0]!, live.fd),
    },
    hostMount: async queues => inherited ? KernelMount.inherit(inherited.live.mountpoint, inherited.fuseFd, inherited.live.connection) : await KernelMount.mount({
      source: options.fsname ?? source, mountpoint: target.path, mode: target.mode, flags: options.mountFlags ?? 0, given, ...rights,
    }, queues),
  })
  if (options.autoUnmount) {
    const guard = Guard.ofConnection(mounted.status().connection)
    void mounted.closed.then(() => guard.dismiss())
  }
  return mounted
}

/** The device and the tag of a process before this one. A device that is to be waited for is reached later. */
async function inheritDevice(source: Source, options: MountOptions, { live, tagFd, device }: Inherited, waits: boolean): Promise<{ transport: Transport, live: LiveTag }> {
  return { transport: waits ? new AwayTransport(device) : await probeDevice({ ...source, tag: live.tag }, options), live: LiveTag.inherit(live, tagFd) }
}
