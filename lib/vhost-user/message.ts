/**
 * vhost-user messages: request numbers, header, payloads.
 *
 * Source: QEMU docs/interop/vhost-user.rst (protocol version 1) for numbers and layouts, with
 * rust-vmm/vhost `message.rs` where the text leaves a choice, because virtiofsd is built on it.
 * Numbers are in the byte order of the machine, which is little endian on every one supported.
 * Layouts are QEMU_PACKED there; all of them are naturally aligned anyway.
 */
import { defineStruct } from '../wire/struct.js'

/** Requests of the frontend. */
export const VhostUserRequest = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  CREATE_CRYPTO_SESSION: 26,
  CLOSE_CRYPTO_SESSION: 27,
  POSTCOPY_ADVISE: 28,
  POSTCOPY_LISTEN: 29,
  POSTCOPY_END: 30,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
  GET_SHMEM_CONFIG: 44,
} as const

/** Requests of the backend, on the socket that SET_BACKEND_REQ_FD hands over. */
export const VhostUserBackendRequest = {
  IOTLB_MSG: 1,
  CONFIG_CHANGE_MSG: 2,
  VRING_HOST_NOTIFIER_MSG: 3,
  VRING_CALL: 4,
  VRING_ERR: 5,
  SHARED_OBJECT_ADD: 6,
  SHARED_OBJECT_REMOVE: 7,
  SHARED_OBJECT_LOOKUP: 8,
  SHMEM_MAP: 9,
  SHMEM_UNMAP: 10,
} as const

const names = new Map<number, string>(Object.entries(VhostUserRequest).map(([name, number]) => [number, name]))
const backendNames = new Map<number, string>(Object.entries(VhostUserBackendRequest).map(([name, number]) => [number, name]))

/** Name of a frontend request, or `request 99`. */
export function requestName(request: number): string {
  return names.get(request) ?? `request ${request}`
}

/** Name of a backend request, or `backend request 99`. */
export function backendRequestName(request: number): string {
  return backendNames.get(request) ?? `backend request ${request}`
}

export const VhostUserHeader = defineStruct('vhost_user_header', 12, { request: 'u32', flags: 'u32', size: 'u32' })

/** Header flags: two bits of version, then single bits; the rest is reserved and zero. */
export const VHOST_USER_VERSION = 1
export const VHOST_USER_VERSION_MASK = 0x3
export const VHOST_USER_REPLY = 0x4
export const VHOST_USER_NEED_REPLY = 0x8
export const VHOST_USER_RESERVED_FLAGS = ~0xf

/** Limits of rust-vmm/vhost, which closes the connection on anything larger. */
export const VHOST_USER_MAX_PAYLOAD = 4096
export const VHOST_USER_MAX_FDS = 32
/** Bytes of configuration space that GET_CONFIG can address (VHOST_USER_CONFIG_SIZE of rust-vmm/vhost). */
export const VHOST_USER_CONFIG_SPACE = 4096
/** QEMU's VHOST_MEMORY_BASELINE_NREGIONS: what every backend accepts. */
export const VHOST_USER_MAX_REGIONS = 8

export const VhostUserU64 = defineStruct('u64', 8, { value: 'u64' })

/** In the u64 of SET_VRING_KICK, CALL and ERR and in the reply to SET_DEVICE_STATE_FD: no descriptor comes with it. */
export const VHOST_USER_NOFD = 0x100
export const VHOST_USER_INDEX_MASK = 0xff

export const VhostVringState = defineStruct('vhost_vring_state', 8, { index: 'u32', num: 'u32' })

export const VhostVringAddr = defineStruct('vhost_vring_addr', 40, {
  index: 'u32', flags: 'u32', desc_user_addr: 'u64', used_user_addr: 'u64', avail_user_addr: 'u64', log_guest_addr: 'u64',
})

/** Header of SET_MEM_TABLE; `nregions` regions follow. */
export const VhostUserMemory = defineStruct('VhostUserMemory', 8, { nregions: 'u32', padding: 'u32' })

export const VhostUserMemoryRegion = defineStruct('VhostUserMemoryRegion', 32, {
  guest_phys_addr: 'u64', memory_size: 'u64', userspace_addr: 'u64', mmap_offset: 'u64',
})

/** ADD_MEM_REG and REM_MEM_REG. */
export const VhostUserMemRegMsg = defineStruct('VhostUserMemRegMsg', 40, {
  padding: 'u64', guest_phys_addr: 'u64', memory_size: 'u64', userspace_addr: 'u64', mmap_offset: 'u64',
})

/** Header of GET_CONFIG and SET_CONFIG; `size` bytes follow. */
export const VhostUserConfig = defineStruct('VhostUserConfig', 12, { offset: 'u32', size: 'u32', flags: 'u32' })

export const VhostUserTransferDeviceState = defineStruct('VhostUserTransferDeviceState', 8, { direction: 'u32', phase: 'u32' })
export const TRANSFER_STATE_SAVE = 0
export const TRANSFER_STATE_LOAD = 1
export const TRANSFER_PHASE_STOPPED = 0

/** Writes a header. @returns its size in bytes */
export function putHeader(view: DataView, at: number, request: number, flags: number, sizeBytes: number): number {
  view.setUint32(at + VhostUserHeader.request, request, true)
  view.setUint32(at + VhostUserHeader.flags, VHOST_USER_VERSION | flags, true)
  view.setUint32(at + VhostUserHeader.size, sizeBytes, true)
  return VhostUserHeader.SIZE
}

/** A zeroed payload and the view to fill it with. */
export function payload(sizeBytes: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(sizeBytes)
  return { bytes, view: new DataView(bytes.buffer) }
}

/** A payload of one u64. */
export function u64Payload(value: bigint | number): Uint8Array {
  const { bytes, view } = payload(VhostUserU64.SIZE)
  view.setBigUint64(0, BigInt(value), true)
  return bytes
}

/** A payload of a ring's index and a number. */
export function vringState(index: number, num: number): Uint8Array {
  const { bytes, view } = payload(VhostVringState.SIZE)
  view.setUint32(VhostVringState.index, index, true)
  view.setUint32(VhostVringState.num, num, true)
  return bytes
}
