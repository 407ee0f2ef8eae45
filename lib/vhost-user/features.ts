/**
 * Feature bits as a vhost-user backend of a virtio-fs device offers them. 64-bit sets are BigInt:
 * they are only looked at while connecting.
 *
 * Sources: virtio 1.2 §5.11.3 (file system device), §6 (reserved feature bits); QEMU
 * docs/interop/vhost-user.rst (protocol features); rust-vmm/vhost `message.rs` for bits 17 to 20.
 */

/** Device feature bits (numbers of bits, not masks). */
export const Feature = {
  FS_NOTIFICATION: 0,
  NOTIFY_ON_EMPTY: 24,
  LOG_ALL: 26,
  ANY_LAYOUT: 27,
  RING_INDIRECT_DESC: 28,
  RING_EVENT_IDX: 29,
  /** Not virtio: vhost-user's own, bit 30 of the same word. */
  PROTOCOL_FEATURES: 30,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  NOTIF_CONFIG_DATA: 39,
  RING_RESET: 40,
  ADMIN_VQ: 41,
} as const

/** Protocol feature bits (numbers of bits, not masks). */
export const ProtocolFeature = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  SHMEM: 20,
} as const

/** A set from numbers of bits. */
export function bits(...numbers: number[]): bigint {
  return numbers.reduce((set, bit) => set | 1n << BigInt(bit), 0n)
}

export function hasBit(set: bigint, bit: number): boolean {
  return (set >> BigInt(bit) & 1n) === 1n
}

/** What the driver can use. VERSION_1 is required, the rest is taken when offered. */
export const WANTED_FEATURES = bits(Feature.VERSION_1, Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX, Feature.PROTOCOL_FEATURES)

/** The protocol features this frontend has code for. */
export const WANTED_PROTOCOL_FEATURES = bits(
  ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK, ProtocolFeature.CONFIG,
  ProtocolFeature.BACKEND_REQ, ProtocolFeature.RESET_DEVICE, ProtocolFeature.DEVICE_STATE,
)

function namesOf(set: bigint, table: Record<string, number>): string[] {
  const byBit = new Map(Object.entries(table).map(([name, bit]) => [bit, name]))
  const out: string[] = []
  for (let bit = 0; bit < 64; bit++) if (hasBit(set, bit)) out.push(byBit.get(bit) ?? String(bit))
  return out
}

/** Names of device feature bits, lowest first; an unknown bit is its number. */
export function featureNames(set: bigint): string[] {
  return namesOf(set, Feature)
}

/** Names of protocol feature bits, lowest first; an unknown bit is its number. */
export function protocolFeatureNames(set: bigint): string[] {
  return namesOf(set, ProtocolFeature)
}
