/** virtiofs-bridge: the public API. Nothing else is exported from the package. */
export { mount, Mount, type MountRequest, type ServedMountRequest, type UnmountOptions } from './mount/mount.js'
export type { MountOptions } from './mount/options.js'
export type { InitAnswer } from './fuse/init.js'
export { FaultControl } from './device/faults.js'
export { bytesToString, stringToBytes } from './device/byte-string.js'
export { FileSystem } from './device/file-system.js'
export type {
  Answer, Attributes, Caller, Changes, Created, DirectoryEntry, Entry, Kernel, Opened, OptionalFlag, Statistics, Timeouts, Timestamp,
} from './device/file-system-values.js'
export { FuseError, type ErrnoName } from './device/fuse-error.js'
export { serveDevice, type ServedDevice, type ServeOptions } from './device/serve.js'
export { PeerGoneError, ProtocolError, SyscallError, UsageError } from './errors.js'
