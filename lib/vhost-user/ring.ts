/** What a backend is told about memory and rings: checked here, in the words of the caller, before anything is sent. */
import { UsageError } from '../errors.js'
import { setU64 } from '../wire/u64.js'
import { payload, VHOST_USER_MAX_REGIONS, VhostUserMemory, VhostUserMemoryRegion, VhostVringAddr } from './message.js'

export interface MemoryRegion {
  guestAddress: number
  /** Bytes. */
  size: number
  /** Where the frontend has it mapped: ring addresses are given in these terms. */
  userAddress: number
  mmapOffset: number
  /** Stays the caller's. */
  fd: number
}

export interface RingOptions {
  /** Entries: a power of two. */
  size: number
  /** Index of the first available entry to look at: 0, or what `stopRing` returned. */
  base?: number
  /** Addresses in the frontend's mapping. */
  descAddr: number
  availAddr: number
  usedAddr: number
  /** eventfds; they stay the caller's. */
  kickFd: number
  callFd: number
  errFd?: number
}

const MAX_RING_SIZE = 32768

/** The payload of SET_MEM_TABLE. @throws UsageError */
export function encodeRegions(regions: readonly MemoryRegion[]): Uint8Array {
  if (regions.length < 1 || regions.length > VHOST_USER_MAX_REGIONS) {
    throw new UsageError(`SET_MEM_TABLE: ${regions.length} regions, 1 to ${VHOST_USER_MAX_REGIONS} are possible`)
  }
  const { bytes, view } = payload(VhostUserMemory.SIZE + regions.length * VhostUserMemoryRegion.SIZE)
  view.setUint32(VhostUserMemory.nregions, regions.length, true)
  regions.forEach((region, i) => {
    if (!(region.size > 0)) throw new UsageError('SET_MEM_TABLE: an empty region')
    const at = VhostUserMemory.SIZE + i * VhostUserMemoryRegion.SIZE
    setU64(view, at + VhostUserMemoryRegion.guest_phys_addr, region.guestAddress)
    setU64(view, at + VhostUserMemoryRegion.memory_size, region.size)
    setU64(view, at + VhostUserMemoryRegion.userspace_addr, region.userAddress)
    setU64(view, at + VhostUserMemoryRegion.mmap_offset, region.mmapOffset)
  })
  return bytes
}

/** The payload of SET_VRING_ADDR. */
export function encodeAddresses(index: number, ring: RingOptions): Uint8Array {
  const { bytes, view } = payload(VhostVringAddr.SIZE)
  view.setUint32(VhostVringAddr.index, index, true)
  setU64(view, VhostVringAddr.desc_user_addr, ring.descAddr)
  setU64(view, VhostVringAddr.used_user_addr, ring.usedAddr)
  setU64(view, VhostVringAddr.avail_user_addr, ring.availAddr)
  return bytes
}

/**
 * @param queueNum how many the backend has; 0 when it did not say
 * @throws UsageError for a ring that no backend could use
 */
export function checkRing(index: number, ring: RingOptions, queueNum: number, regions: readonly MemoryRegion[]): void {
  if (!Number.isInteger(index) || index < 0 || index > 0xff || queueNum > 0 && index >= queueNum) {
    throw new UsageError(`ring ${index} of ${queueNum || 256}`)
  }
  const { size } = ring
  if (!Number.isInteger(size) || size < 1 || size > MAX_RING_SIZE || (size & size - 1) !== 0) {
    throw new UsageError(`ring ${index}: size ${size} is not a power of two up to ${MAX_RING_SIZE}`)
  }
  // split ring, virtio 1.2 §2.7: bytes of each part and their alignment; 2 each for the event index
  const parts = [
    ['descAddr', ring.descAddr, 16 * size, 16],
    ['availAddr', ring.availAddr, 6 + 2 * size, 2],
    ['usedAddr', ring.usedAddr, 6 + 8 * size, 4],
  ] as const
  for (const [name, address, lengthBytes, alignment] of parts) {
    if (address % alignment !== 0) throw new UsageError(`ring ${index}: ${name} is not a multiple of ${alignment}`)
    if (!regions.some(region => address >= region.userAddress && address + lengthBytes <= region.userAddress + region.size)) {
      throw new UsageError(`ring ${index}: ${name} is in no memory region`)
    }
  }
}
