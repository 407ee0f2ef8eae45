/**
 * Both sides of one split ring over plain memory. A chain's descriptors lie in a table of their
 * own per token, as the driver has them; the buffers are addresses in the region, never touched.
 */
import { regionOver, type Region } from '../../lib/sys/memory.js'
import { DeviceRing } from '../../lib/virtio/device-ring.js'
import { DriverRing, writeDescriptor, type RingFeatures } from '../../lib/virtio/driver-ring.js'
import { layoutRing, VIRTQ_DESC_F_WRITE, VirtqDesc, type RingLayout } from '../../lib/virtio/split-ring.js'

export const ALL_FEATURES: RingFeatures[] = [
  { indirectDesc: false, eventIdx: false }, { indirectDesc: true, eventIdx: false },
  { indirectDesc: false, eventIdx: true }, { indirectDesc: true, eventIdx: true },
]

export function featureText(features: RingFeatures): string {
  return `${features.indirectDesc ? 'indirect' : 'direct'}, event index ${features.eventIdx ? 'on' : 'off'}`
}

const MAX_LENGTH = 8
const TABLE_BYTES = MAX_LENGTH * VirtqDesc.SIZE
const ADDRESS = 0x7f12_3456_7000
/** Distance between the buffers that `add` describes. */
export const BUFFER_BYTES = 64

export class RingPair {
  readonly region: Region
  readonly layout: RingLayout
  readonly driver: DriverRing
  readonly device: DeviceRing
  readonly #tables: number
  readonly #buffers: number

  /** @param tokens how many different tokens `add` may be given */
  constructor(size: number, features: RingFeatures, readonly tokens = size) {
    this.layout = layoutRing(size, 64)
    this.#tables = (this.layout.end + 15) & ~15
    this.#buffers = this.#tables + tokens * TABLE_BYTES
    const lengthBytes = this.#buffers + tokens * MAX_LENGTH * BUFFER_BYTES
    const buffer = new ArrayBuffer(lengthBytes)
    new Uint8Array(buffer).fill(0xa5)
    this.region = regionOver(buffer, ADDRESS)
    this.driver = new DriverRing(this.region, this.layout, features)
    this.device = new DeviceRing(this.region, this.layout, features)
  }

  /** Guest address of a token's i-th buffer. */
  bufferAddress(token: number, i: number): number {
    return ADDRESS + this.#buffers + (token * MAX_LENGTH + i) * BUFFER_BYTES
  }

  /** Length that `add` gives the i-th buffer of a token. */
  bufferLength(token: number, i: number): number {
    return 1 + (token * 7 + i * 3) % BUFFER_BYTES
  }

  /** Byte of the region where a token's descriptors lie. */
  tableAt(token: number): number {
    return this.#tables + token * TABLE_BYTES
  }

  /** Makes a chain available: `readable` buffers, then `writable` ones. */
  add(token: number, readable: number, writable: number): void {
    const table = this.tableAt(token)
    const count = readable + writable
    for (let i = 0; i < count; i++) {
      writeDescriptor(this.region.view, table, i, this.bufferAddress(token, i), this.bufferLength(token, i), i < readable ? 0 : VIRTQ_DESC_F_WRITE, i === count - 1)
    }
    this.driver.add(table, ADDRESS + table, count, token)
  }

  /** Whether the chain that the device took last is the one that `add` made of these. */
  deviceHas(token: number, readable: number, writable: number): boolean {
    const { device } = this
    if (device.count !== readable + writable || device.readableCount !== readable) return false
    let readableBytes = 0
    let writableBytes = 0
    for (let i = 0; i < device.count; i++) {
      if (device.addresses[i] !== this.bufferAddress(token, i) || device.lengths[i] !== this.bufferLength(token, i)) return false
      if (i < readable) readableBytes += this.bufferLength(token, i)
      else writableBytes += this.bufferLength(token, i)
    }
    return device.readableBytes === readableBytes && device.writableBytes === writableBytes
  }

  /** Writes a descriptor into the ring's own table, as a broken driver might. */
  rawDescriptor(index: number, address: number, lengthBytes: number, flags: number, next: number): void {
    this.rawDescriptorAt(this.layout.desc + index * VirtqDesc.SIZE, address, lengthBytes, flags, next)
  }

  /** The same at any byte of the region. */
  rawDescriptorAt(at: number, address: number, lengthBytes: number, flags: number, next: number): void {
    const { view } = this.region
    view.setBigUint64(at + VirtqDesc.addr, BigInt(address), true)
    view.setUint32(at + VirtqDesc.len, lengthBytes, true)
    view.setUint16(at + VirtqDesc.flags, flags, true)
    view.setUint16(at + VirtqDesc.next, next, true)
  }

  /** Puts a head into avail.ring and sets avail.idx, past the driver. */
  rawAvail(slot: number, head: number, idx: number): void {
    this.region.view.setUint16(this.layout.avail + 4 + 2 * slot, head, true)
    this.region.view.setUint16(this.layout.avail + 2, idx, true)
  }

  /** Puts an element into used.ring and sets used.idx, past the device. */
  rawUsed(slot: number, id: number, length: number, idx: number): void {
    this.region.view.setUint32(this.layout.used + 4 + 8 * slot, id, true)
    this.region.view.setUint32(this.layout.used + 8 + 8 * slot, length, true)
    this.region.view.setUint16(this.layout.used + 2, idx, true)
  }
}
