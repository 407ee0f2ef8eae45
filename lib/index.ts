/** virtiofs-bridge: the public API. Nothing else is exported from the package. */
export { mount, Mount, type MountRequest, type UnmountOptions } from './mount/mount.js'
export type { MountOptions } from './mount/options.js'
export type { InitAnswer } from './fuse/init.js'
export { FaultControl } from './device/faults.js'
export { PeerGoneError, ProtocolError, SyscallError, UsageError } from './errors.js'
