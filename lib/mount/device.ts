/** From a source to a probed device: which transport, and what has to be started for it. */
import { EmulatedTransport, type HandlersSource } from '../driver/emulated-transport.js'
import type { Replacement, ReplacementTarget, Transport } from '../driver/transport.js'
import { VhostUserTransport } from '../driver/vhost-user-transport.js'
import type { FaultControl, FaultsData } from '../device/faults.js'
import type { ServedData } from '../device/file-system-handlers.js'
import { allocateInterrupts } from '../device/interrupts.js'
import { NOTIFY_BUFFER_BYTES } from '../device/notification-sender.js'
import { closePassthrough, mountedAs, openPassthrough } from '../device/passthrough/shared.js'
import { WATCH_THREAD } from '../device/passthrough/watch.js'
import type { ServedDevice } from '../device/serve.js'
import { PeerGoneError, UsageError } from '../errors.js'
import { RelayTransport } from '../relay/relay-transport.js'
import { VhostUserFrontend } from '../vhost-user/frontend.js'
import { MS_NOATIME, MS_NODIRATIME } from './flags.js'
import { FORWARDED } from './relay-options.js'
import { formatMountOptions, mountTimeoutMs, pollMicroseconds, type MountOptions } from './options.js'
import type { Source } from './source.js'
import { Virtiofsd } from './virtiofsd.js'

/** Options of a directory that only the emulated device has. */
const OF_OURS = [['hide', 'hide'], ['only', 'only'], ['max_size', 'maxSize']] as const

/** Options of who may do and see what in a shared directory: a backend that we do not start would not know of them. */
const PROTECTIVE = [['xattrmap', 'xattrmap'], ['translate_uid', 'translateUid'], ['translate_gid', 'translateGid'], ['hide', 'hide'], ['only', 'only'], ['max_size', 'maxSize']] as const

/**
 * Reaches the device that a source names.
 *
 * @param signal ends the waiting for another host
 * @throws UsageError, ProtocolError, PeerGoneError, SyscallError: one line each
 */
export async function probeDevice(source: Source, options: MountOptions, faults?: FaultControl, signal?: AbortSignal): Promise<Transport> {
  if (options.direct && (source.kind === 'socket' || options.backend)) throw new UsageError('option direct needs the emulated device')
  if (source.kind === 'remote') refuseForRemote(options, faults)
  if (options.direct && options.writeback) throw new UsageError('option direct does not go with writeback: the kernel has no cache of its own then')
  if (options.cache === 'coherent' && (source.kind === 'socket' || options.backend)) {
    throw new UsageError('cache=coherent needs the emulated device: a virtiofsd tells of no changes')
  }
  const unknown = options.backend && OF_OURS.find(([, key]) => options[key] !== undefined)
  if (unknown) throw new UsageError(`option ${unknown[0]} needs the emulated device: no virtiofsd has it`)
  if (faults && (source.kind === 'socket' || options.backend)) throw new UsageError('faults need the emulated device')
  if (source.kind === 'socket') {
    if (options.backend !== undefined) throw new UsageError('backend=virtiofsd needs a directory as its source, not a socket')
    const protective = PROTECTIVE.find(([, key]) => options[key] !== undefined)
    if (protective) throw new UsageError(`option ${protective[0]} needs a directory as its source: a backend that runs already has its own`)
    return await VhostUserTransport.probe(VhostUserFrontend.connect(source.path, { timeoutMs: mountTimeoutMs(options.mountTimeout) }), source.tag)
  }
  if (source.kind === 'remote') return await reach(source, options, signal)
  if (source.kind === 'served') return serve(source.device, source.tag, options, faults)
  return options.backend === 'virtiofsd' ? await startVirtiofsd(source.path, source.tag, options) : emulate(source.path, source.tag, options, faults)
}

/** Options of the emulated device or of a backend, that a device on another host cannot have. */
const NOT_REMOTE = [['backend', 'backend'], ['virtiofsd', 'virtiofsd'], ['sandbox', 'sandbox'], ['socket', 'socket'], ['direct', 'direct']] as const

function refuseForRemote(options: MountOptions, faults: FaultControl | undefined): void {
  const wrong = NOT_REMOTE.find(([, key]) => options[key])
  if (wrong) throw new UsageError(`option ${wrong[0]} is for a device on this host; the far end's own options are given to virtiofs-bridge relay there`)
  if (options.cache === 'coherent') throw new UsageError('cache=coherent needs a device on this host: what changes at the far end is not told')
  if (faults) throw new UsageError('faults need the emulated device')
}

async function reach({ argv, tag, session }: Extract<Source, { kind: 'remote' }>, options: MountOptions, signal: AbortSignal | undefined): Promise<Transport> {
  return await RelayTransport.connect({
    argv, tag, farOptions: formatMountOptions(options, FORWARDED), timeoutMs: mountTimeoutMs(options.mountTimeout), pollUs: pollMicroseconds(options.poll ?? 'off'), session, signal,
    lookAhead: options.defaultPermissions ?? true,
  })
}

async function startVirtiofsd(directory: string, tag: string, options: MountOptions): Promise<Transport> {
  const virtiofsd = await Virtiofsd.start(directory, tag, options)
  try {
    const transport = await VhostUserTransport.probe(virtiofsd.frontend, tag)
    return new BackendTransport(transport, virtiofsd, binary => Virtiofsd.start(directory, tag, { ...options, ...binary !== undefined && { virtiofsd: binary } }))
  } catch (error) {
    virtiofsd.frontend.close()
    await virtiofsd.end()
    const said = virtiofsd.said()
    if (said !== '' && error instanceof PeerGoneError) throw new PeerGoneError(`virtiofsd ended: ${said.split('\n').at(-1)!}`)
    throw error
  }
}

/** A vhost-user device whose process is ours. */
class BackendTransport implements Transport {
  readonly info
  readonly #transport: VhostUserTransport
  #backend: Virtiofsd
  readonly #another: (virtiofsd: string | undefined) => Promise<Virtiofsd>

  /** @param another starts one like it, of another binary perhaps */
  constructor(transport: VhostUserTransport, backend: Virtiofsd, another: (virtiofsd: string | undefined) => Promise<Virtiofsd>) {
    this.info = transport.info
    this.#transport = transport
    this.#backend = backend
    this.#another = another
  }

  start(...args: Parameters<Transport['start']>): ReturnType<Transport['start']> {
    return this.#transport.start(...args)
  }

  socketFd(): number {
    return this.#transport.socketFd()
  }

  async prepareReplacement({ socket, virtiofsd }: ReplacementTarget): Promise<Replacement> {
    if (socket !== undefined) throw new UsageError('the backend was started here, and another one is: no socket is needed')
    const next = await this.#another(virtiofsd)
    let prepared: Replacement
    try {
      prepared = await this.#transport.prepareFrontend(next.frontend)
    } catch (error) {
      await next.end()
      throw error
    }
    return {
      move: async () => {
        await prepared.move()
        const old = this.#backend
        this.#backend = next
        // its client is gone: it ends by itself, or is killed
        void old.end()
      },
      discard: async () => {
        await prepared.discard()
        await next.end()
      },
    }
  }

  stop(gone: boolean): Promise<void> {
    return this.#transport.stop(gone)
  }

  async close(): Promise<void> {
    await this.#transport.close()
    await this.#backend.end()
  }
}

/** More queues than this make no sense on any machine: each has a thread and its buffers. */
const MAX_EMULATED_QUEUES = 16

function emulate(directory: string, tag: string, options: MountOptions, faults?: FaultControl): Transport {
  const shared = openPassthrough({
    root: directory, cache: options.cache ?? 'auto', writeback: options.writeback ?? false,
    xattr: (options.xattr ?? false) || (options.posixAcl ?? false) || options.xattrmap !== undefined, posixAcl: options.posixAcl ?? false,
    readonly: options.readonly ?? false, allowDirectIo: options.allowDirectIo ?? false, direct: options.direct ?? false,
    noatime: ((options.mountFlags ?? 0) & MS_NOATIME) !== 0, nodiratime: ((options.mountFlags ?? 0) & MS_NODIRATIME) !== 0, readdirplus: options.readdirplus ?? true,
    xattrMap: options.xattrmap ?? '', translateUid: options.translateUid ?? [], translateGid: options.translateGid ?? [], hide: options.hide ?? [], only: options.only ?? [], maxSize: options.maxSize ?? Infinity,
  })
  const module = new URL('../device/passthrough-handlers.js', import.meta.url).href
  const { notices } = shared
  const notifications = shared.fanotifyFd < 0 ? undefined
    : { thread: WATCH_THREAD, data: shared, bufferBytes: NOTIFY_BUFFER_BYTES }
  const close = (): void => closePassthrough(shared)
  return emulatedTransport(tag, MAX_EMULATED_QUEUES, { module, data: shared, notices, notifications, mountedAs: connection => mountedAs(shared, connection), close }, faults)
}

/** Options that say how a shared directory is served: a file system of its own decides that itself. */
const OF_DIRECTORIES = ['backend', 'socket', 'cache', 'writeback', 'xattr', 'posixAcl', 'xattrmap', 'translateUid', 'translateGid', 'hide', 'only', 'maxSize', 'allowDirectIo', 'direct', 'readdirplus', 'readonly'] as const

function serve({ module, data, async }: ServedDevice, tag: string, options: MountOptions, faults?: FaultControl): Transport {
  const wrong = OF_DIRECTORIES.find(key => options[key] !== undefined)
  if (wrong) throw new UsageError(`option ${wrong} needs a directory as its source, not a served file system`)
  const interrupts = async ? allocateInterrupts() : undefined
  const served: ServedData = { module, data, interrupts }
  const adapter = new URL('../device/file-system-handlers.js', import.meta.url).href
  return emulatedTransport(tag, 1, { module: adapter, data: served, threads: async ? 'loop' : 'queues', interrupts, close: () => {} }, faults)
}

function emulatedTransport(tag: string, queues: number, handlers: HandlersSource, faults?: FaultControl): Transport {
  if (!faults) return new EmulatedTransport(tag, queues, handlers)
  const interrupts = handlers.interrupts ?? allocateInterrupts()
  const data: FaultsData = { module: handlers.module, data: handlers.data, rules: faults.shared, interrupts }
  return new EmulatedTransport(tag, queues, { ...handlers, module: new URL('../device/faults.js', import.meta.url).href, data, interrupts })
}
