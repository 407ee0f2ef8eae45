/** The passthrough file system: a directory of this host, served request by request. */
import { errno } from '../../errors.js'
import { FUSE_COMPAT_SETXATTR_IN_SIZE, FuseInitIn } from '../../fuse/abi.js'
import { Op, OPCODE_LIMIT, opcodeRow } from '../../fuse/opcodes.js'
import { elapsedUs, microseconds } from '../../sys/clock.js'
import { scratch } from '../../sys/memory.js'
import { MAY_BLOCK, NO_REPLY, type DeviceRequest, type Handlers } from '../handlers.js'
import * as attributes from './attribute-requests.js'
import * as entries from './entries.js'
import { CHANGES_FILES, droppingCapabilities } from './file-capabilities.js'
import * as fileData from './file-data.js'
import * as fileRanges from './file-ranges.js'
import { destroy, init } from './init.js'
import { Head } from './layout.js'
import { acquire, release } from './mutex.js'
import * as making from './making.js'
import { MountKind } from './mount-table.js'
import * as namespace from './namespace.js'
import * as openFiles from './open-files.js'
import type { Operation } from './operation.js'
import type { PassthroughShared } from './shared.js'
import * as renames from './renames.js'
import { SlowOperations } from './slow-operations.js'
import { Volume } from './volume.js'
import * as xattrs from './xattrs.js'

const noReply: Operation = () => NO_REPLY

/** What is not here gets ENOSYS; the kernel then keeps locks itself. */
const operations: Partial<Record<number, Operation>> = {
  [Op.LOOKUP]: namespace.lookup,
  [Op.FORGET]: namespace.forget,
  [Op.GETATTR]: attributes.getattr,
  [Op.SETATTR]: attributes.setattr,
  [Op.READLINK]: namespace.readlink,
  [Op.SYMLINK]: making.symlink,
  [Op.MKNOD]: making.mknod,
  [Op.MKDIR]: making.mkdir,
  [Op.UNLINK]: namespace.unlink,
  [Op.RMDIR]: namespace.rmdir,
  [Op.RENAME]: renames.rename,
  [Op.LINK]: making.link,
  [Op.OPEN]: openFiles.open,
  [Op.READ]: fileData.read,
  [Op.WRITE]: fileData.write,
  [Op.STATFS]: attributes.statfs,
  [Op.RELEASE]: openFiles.release,
  [Op.FSYNC]: fileData.fsyncFile,
  [Op.SETXATTR]: xattrs.setXattr,
  [Op.GETXATTR]: xattrs.getXattr,
  [Op.LISTXATTR]: xattrs.listXattr,
  [Op.REMOVEXATTR]: xattrs.removeXattr,
  [Op.FLUSH]: fileData.flush,
  [Op.INIT]: init,
  [Op.OPENDIR]: openFiles.opendir,
  [Op.READDIR]: entries.readdir,
  [Op.RELEASEDIR]: openFiles.releasedir,
  [Op.FSYNCDIR]: fileData.fsyncDirectory,
  [Op.ACCESS]: attributes.access,
  [Op.CREATE]: openFiles.create,
  [Op.INTERRUPT]: noReply,
  [Op.DESTROY]: destroy,
  [Op.NOTIFY_REPLY]: noReply,
  [Op.BATCH_FORGET]: namespace.batchForget,
  [Op.FALLOCATE]: fileRanges.fallocateFile,
  [Op.READDIRPLUS]: entries.readdirplus,
  [Op.RENAME2]: renames.rename2,
  [Op.LSEEK]: fileRanges.lseekFile,
  [Op.COPY_FILE_RANGE]: fileRanges.copyRange,
  [Op.SYNCFS]: attributes.syncFileSystem,
  [Op.TMPFILE]: openFiles.tmpfile,
  [Op.STATX]: attributes.statxInode,
  [Op.COPY_FILE_RANGE_64]: fileRanges.copyRange64,
}

/** What a read-only volume refuses outright. OPEN, CREATE and ACCESS look at their flags themselves. */
const CHANGING: readonly number[] = [
  Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.LINK, Op.WRITE, Op.SETXATTR, Op.REMOVEXATTR, Op.FALLOCATE,
  Op.RENAME2, Op.COPY_FILE_RANGE, Op.TMPFILE, Op.COPY_FILE_RANGE_64,
]

/** What moves data without end. READ and WRITE look at the file. */
const SLOW: readonly number[] = [Op.FALLOCATE, Op.COPY_FILE_RANGE, Op.COPY_FILE_RANGE_64]
/** What waits for a disk, where there is one. */
const SLOW_ON_DISK: readonly number[] = [...SLOW, Op.FSYNC, Op.FSYNCDIR, Op.SYNCFS]

function flagsOf(opcodes: readonly number[]): Uint8Array {
  const flags = new Uint8Array(OPCODE_LIMIT)
  for (const opcode of opcodes) flags[opcode] = 1
  return flags
}

const isSlow = flagsOf(SLOW)
const isSlowOnDisk = flagsOf(SLOW_ON_DISK)

/**
 * What gives a name to something. With `only` one at a time: whether a directory may get a name that
 * a file may not have is asked before it is renamed, and it must not become a file in between.
 */
const NAMING: readonly number[] = [Op.SYMLINK, Op.MKNOD, Op.RENAME, Op.LINK, Op.CREATE, Op.RENAME2]

function exclusively(operation: Operation): Operation {
  return (volume, request) => {
    const { words, inodes: { address } } = volume
    acquire(words, address, Head.NAMES_LOCK)
    const done = operation(volume, request)
    release(words, address, Head.NAMES_LOCK)
    return done
  }
}

const readonlyRefusal: Operation = () => -errno.EROFS

/** Least bytes of arguments, and of room for the reply, that an operation may count on. */
const leastArgs = new Uint16Array(OPCODE_LIMIT)
const leastReply = new Uint16Array(OPCODE_LIMIT)
for (let opcode = 0; opcode < OPCODE_LIMIT; opcode++) {
  const row = opcodeRow(opcode)
  if (!row) continue
  leastArgs[opcode] = row.inBytes
  leastReply[opcode] = Math.max(0, row.outBytes)
}
// two structures have grown; their handlers look at what is there
leastArgs[Op.INIT] = FuseInitIn.flags2
leastArgs[Op.SETXATTR] = FUSE_COMPAT_SETXATTR_IN_SIZE

/** The file system in one device worker. Its workers share what `openPassthrough` made. */
export class Passthrough implements Handlers {
  readonly #volume: Volume
  readonly #slow: SlowOperations
  readonly #table: (Operation | undefined)[] = new Array(OPCODE_LIMIT).fill(undefined)

  /** @param windowFd see `DeviceHost` */
  constructor(shared: PassthroughShared, windowFd = -1) {
    this.#volume = new Volume(shared, windowFd)
    this.#slow = new SlowOperations(this.#volume.mounts)
    for (let opcode = 0; opcode < OPCODE_LIMIT; opcode++) this.#table[opcode] = operations[opcode]
    const capability = this.#volume.xattrMap?.capability
    if (capability !== undefined) {
      const name = scratch(capability.length)
      name.bytes.set(capability)
      for (const opcode of CHANGES_FILES) this.#table[opcode] = droppingCapabilities(this.#table[opcode]!, name.address)
    }
    if (this.#volume.filter?.asksType) for (const opcode of NAMING) this.#table[opcode] = exclusively(this.#table[opcode]!)
    if (shared.options.readonly) for (const opcode of CHANGING) this.#table[opcode] = readonlyRefusal
  }

  handle(request: DeviceRequest): number {
    const { opcode } = request
    const operation = opcode < OPCODE_LIMIT ? this.#table[opcode] : undefined
    if (operation === undefined) return -errno.ENOSYS
    if (request.argsBytes < leastArgs[opcode]! || request.extensionBytes > request.argsBytes - leastArgs[opcode]!) {
      return leastReply[opcode] === 0 && isSilent(opcode) ? NO_REPLY : -errno.EINVAL
    }
    if (request.replyBytes < leastReply[opcode]!) return -errno.EINVAL
    let done = 0
    if (request.mayBlock) {
      done = operation(this.#volume, request)
    } else if (this.#volume.mounts.all(MountKind.MEMORY)) {
      if (isSlow[opcode] === 1) return MAY_BLOCK
      done = operation(this.#volume, request)
    } else {
      if (isSlowOnDisk[opcode] === 1 || this.#slow.avoids(opcode)) return MAY_BLOCK
      const startUs = microseconds()
      done = operation(this.#volume, request)
      this.#slow.took(opcode, elapsedUs(startUs, microseconds()))
    }
    return done === -errno.ENOSPC || done === -errno.EDQUOT ? this.#withRoom(operation, request, done) : done
  }

  /** A request lacked room. What is being freed is gone to its caller: once that is done it is tried again. */
  #withRoom(operation: Operation, request: DeviceRequest, failed: number): number {
    const { freeing } = this.#volume
    if (!freeing.pending) return failed
    if (!request.mayBlock) return MAY_BLOCK
    freeing.settle()
    return operation(this.#volume, request)
  }

  mayLeave(): void {
    this.#volume.freeing.enable()
  }

  claimLeft(): boolean {
    return this.#volume.freeing.claim()
  }

  finish(): void {
    this.#volume.freeing.finish()
  }

  close(): void {
    this.#volume.close()
  }
}

function isSilent(opcode: number): boolean {
  return opcode === Op.FORGET || opcode === Op.BATCH_FORGET || opcode === Op.INTERRUPT || opcode === Op.NOTIFY_REPLY
}
