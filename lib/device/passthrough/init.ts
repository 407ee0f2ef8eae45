/** INIT and DESTROY: what is negotiated with the kernel, and the end of a session. */
import { errno } from '../../errors.js'
import { FUSE_INIT_FLAGS, FUSE_KERNEL_VERSION, FuseInitIn, FuseInitOut, type InitFlag } from '../../fuse/abi.js'
import { MAY_BLOCK, type DeviceRequest } from '../handlers.js'
import { writeFlagsAndLimits, writeVersion } from '../init-reply.js'
import { Head, Negotiated } from './layout.js'
import type { PassthroughOptions } from './options.js'
import type { Volume } from './volume.js'

/** The oldest kernel served; virtio-fs came with 7.31, virtiofsd takes 7.27. */
const OLDEST_MINOR = 27
/** Backing files may lie on no stacked file system; so overlayfs still fits on top of the mount. */
const STACK_DEPTH = 1
/** fuse_init_in of kernels without INIT_EXT ends before flags2. */
const OLD_INIT_IN_BYTES = FuseInitIn.flags2

/** Always answered when offered. */
const ALWAYS: readonly InitFlag[] = [
  'ASYNC_READ', 'ATOMIC_O_TRUNC', 'BIG_WRITES', 'ASYNC_DIO', 'PARALLEL_DIROPS', 'MAX_PAGES', 'INIT_EXT',
  // a symbolic link is never changed, only replaced by another inode
  'CACHE_SYMLINKS',
  'HANDLE_KILLPRIV_V2', 'SETXATTR_EXT', 'CREATE_SUPP_GROUP', 'ALLOW_IDMAP',
]

function bit(flag: InitFlag): bigint {
  return 1n << BigInt(FUSE_INIT_FLAGS[flag])
}

function wanted(options: PassthroughOptions): readonly InitFlag[] {
  // the kernel drops cached data when it is told to, or when a modification time is not what it was
  const flags = [...ALWAYS, options.cache === 'coherent' ? 'EXPLICIT_INVAL_DATA' as const : 'AUTO_INVAL_DATA' as const]
  // with no time to live every entry would be looked up again at once
  if (options.readdirplus && options.cache !== 'never') flags.push('DO_READDIRPLUS', 'READDIRPLUS_AUTO')
  if (options.writeback) flags.push('WRITEBACK_CACHE')
  if (options.posixAcl) flags.push('POSIX_ACL', 'DONT_MASK')
  // every policy but always opens some files with FOPEN_DIRECT_IO, and other opens of them may be mapped
  if (options.cache !== 'always') flags.push('DIRECT_IO_ALLOW_MMAP')
  return flags
}

/** A second INIT starts a new session: everything of the one before is released. */
export function init(volume: Volume, request: DeviceRequest): number {
  const { args, argsAt, reply, replyAt } = request
  const major = args.getUint32(argsAt + FuseInitIn.major, true)
  const minor = args.getUint32(argsAt + FuseInitIn.minor, true)
  if (major < FUSE_KERNEL_VERSION) return -errno.EPROTO
  if (request.replyBytes < FuseInitOut.SIZE) return -errno.EINVAL
  if (!writeVersion(request)) return FuseInitOut.SIZE
  if (minor < OLDEST_MINOR) return -errno.EPROTO

  let offered = BigInt(args.getUint32(argsAt + FuseInitIn.flags, true))
  if ((offered & bit('INIT_EXT')) !== 0n && request.argsBytes >= OLD_INIT_IN_BYTES + 4) {
    offered |= BigInt(args.getUint32(argsAt + FuseInitIn.flags2, true)) << 32n
  }
  let answer = 0n
  for (const flag of wanted(volume.options)) answer |= offered & bit(flag)
  // what is written to a backing file does not pass here: the kernel must clear suid and sgid itself, and
  // does so for O_TRUNC when that is a SETATTR
  if (volume.options.direct && (offered & bit('PASSTHROUGH')) !== 0n) answer = (answer | bit('PASSTHROUGH')) & ~(bit('HANDLE_KILLPRIV_V2') | bit('ATOMIC_O_TRUNC'))
  if (volume.options.posixAcl && (answer & bit('POSIX_ACL')) === 0n) return -errno.EPROTO

  endSession(volume)
  let negotiated = 0
  if ((answer & bit('WRITEBACK_CACHE')) !== 0n) negotiated |= Negotiated.WRITEBACK
  if ((answer & bit('POSIX_ACL')) !== 0n) negotiated |= Negotiated.POSIX_ACL
  if ((answer & bit('SETXATTR_EXT')) !== 0n) negotiated |= Negotiated.SETXATTR_EXT
  if ((answer & bit('HANDLE_KILLPRIV_V2')) !== 0n) negotiated |= Negotiated.KILLPRIV_V2
  if ((answer & bit('CREATE_SUPP_GROUP')) !== 0n) negotiated |= Negotiated.SUPP_GROUP
  // only kernels that know this flag drop cached pages of what is written directly
  const coherent = (answer & bit('DIRECT_IO_ALLOW_MMAP')) !== 0n
  if (coherent && volume.options.cache === 'auto' && (negotiated & Negotiated.WRITEBACK) === 0 && (answer & bit('PASSTHROUGH')) === 0n) negotiated |= Negotiated.DIRECT_WRITES
  if ((answer & bit('PASSTHROUGH')) !== 0n) {
    negotiated |= Negotiated.PASSTHROUGH
    reply.setUint32(replyAt + FuseInitOut.max_stack_depth, STACK_DEPTH, true)
  }
  Atomics.store(volume.words, Head.NEGOTIATED, negotiated)

  writeFlagsAndLimits(request, Number(answer & 0xffff_ffffn), Number(answer >> 32n))
  return FuseInitOut.SIZE
}

/** The kernel sends no FORGETs at unmount: the end of a session frees every lookup and every open file. */
function endSession(volume: Volume): void {
  volume.handles.releaseAll()
  volume.inodes.forgetAll()
  volume.freeing.settle()
  Atomics.store(volume.words, Head.NEGOTIATED, 0)
}

export function destroy(volume: Volume, request: DeviceRequest): number {
  if (volume.freeing.pending && !request.mayBlock) return MAY_BLOCK
  endSession(volume)
  return 0
}
