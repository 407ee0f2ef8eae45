/** A hostile device on the notification queue: only sound invalidations may reach the kernel. */
import { planMemory } from '../../lib/driver/memory-plan.js'
import { NotificationQueue } from '../../lib/driver/notification-queue.js'
import { NOTIFY_BUFFER_BYTES } from '../../lib/device/notification-sender.js'
import {
  FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_INVAL_INODE, FuseNotifyDeleteOut, FuseNotifyInvalEntryOut,
  FuseNotifyInvalInodeOut, FuseOutHeader,
} from '../../lib/fuse/abi.js'
import { mapAnonymous, rewindScratch, scratchMark, unmap, viewRegion } from '../../lib/sys/memory.js'
import { DeviceRing } from '../../lib/virtio/device-ring.js'
import { MockFuse, type Reply } from '../support/mock-fuse.js'
import { ALL_FEATURES } from '../support/ring-pair.js'
import { SeededRandom } from '../support/seeded-random.js'
import type { HostileReport } from './hostile-device.js'

const SIZE = 8
const ROUNDS = 300
const CODES = [FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_DELETE, FUSE_NOTIFY_INC_EPOCH]
/** Bytes of each before its name. */
const FIXED: Record<number, number> = {
  [FUSE_NOTIFY_INVAL_INODE]: FuseNotifyInvalInodeOut.SIZE, [FUSE_NOTIFY_INVAL_ENTRY]: FuseNotifyInvalEntryOut.SIZE, [FUSE_NOTIFY_DELETE]: FuseNotifyDeleteOut.SIZE, [FUSE_NOTIFY_INC_EPOCH]: 0,
}
const NAMELEN_AT: Record<number, number> = { [FUSE_NOTIFY_INVAL_ENTRY]: FuseNotifyInvalEntryOut.namelen, [FUSE_NOTIFY_DELETE]: FuseNotifyDeleteOut.namelen }

/** One queue, until it is broken. @throws Error for a finding */
export function hostileNotifications(seed: number, report: HostileReport): void {
  const random = new SeededRandom(seed)
  const features = ALL_FEATURES[random.below(ALL_FEATURES.length)]!
  const plan = planMemory({ queues: 1, queueSize: SIZE, indirectDesc: features.indirectDesc, largeBuffers: 2, notifyBufBytes: NOTIFY_BUFFER_BYTES })
  const mark = scratchMark()
  const region = viewRegion(mapAnonymous(plan.lengthBytes), plan.lengthBytes)
  const kernel = new MockFuse()
  try {
    const queue = new NotificationQueue(region, plan.notification!, features, kernel.fd)
    const ring = new DeviceRing(region, plan.notification!.ring, features)
    for (let round = 0; round < ROUNDS && queue.ring.broken === ''; round++) {
      for (let i = random.between(1, SIZE); i > 0; i--) {
        const head = ring.pop()
        if (head < 0) break
        const at = ring.addresses[0]! - region.address
        const code = random.below(6) === 0 ? random.below(12) - 2 : CODES[random.below(CODES.length)]!
        const name = Buffer.from(['a name', 'x/y', 'nul\0in', '', 'n'.repeat(random.below(1100))][random.below(5)]!, 'latin1')
        const fixed = FIXED[code] ?? 16
        const named = NAMELEN_AT[code]
        let length = FuseOutHeader.SIZE + fixed + (named === undefined ? 0 : name.length + 1)
        const body = region.bytes.subarray(at, at + NOTIFY_BUFFER_BYTES)
        body.fill(0, 0, Math.min(length + 8, NOTIFY_BUFFER_BYTES))
        if (named !== undefined) {
          body.set(name.subarray(0, NOTIFY_BUFFER_BYTES - 64), FuseOutHeader.SIZE + fixed)
          region.view.setUint32(at + FuseOutHeader.SIZE + named, name.length, true)
        }
        region.view.setUint32(at + FuseOutHeader.len, length, true)
        region.view.setInt32(at + FuseOutHeader.error, code, true)
        for (let n = random.below(3); n > 0; n--) {
          report.mutated++
          switch (random.below(4)) {
            case 0: region.view.setUint32(at + 4 * random.below(12), [0, 1, 0xffff_ffff, 1024, 4096, random.below(2 ** 32)][random.below(6)]!, true); break
            case 1: length = [0, 15, 16, NOTIFY_BUFFER_BYTES, NOTIFY_BUFFER_BYTES + 1, 0xffff_ffff, random.below(2 ** 32)][random.below(7)]!; break
            case 2: region.bytes[at + random.below(Math.max(1, Math.min(length, NOTIFY_BUFFER_BYTES)))] = random.below(256); break
            case 3: length += random.between(-2, 2); break
          }
        }
        const wrongId = random.below(1500) === 0
        ring.push(wrongId ? random.below(2 ** 32) : head, length >>> 0)
      }
      queue.complete(100)
      report.requests++
      for (const reply of kernel.collect()) checkNotification(reply)
      if (ring.broken !== '') throw new Error(`the driver broke the ring: ${ring.broken}`)
    }
    if (queue.ring.broken !== '') report.broken++
    report.runs++
  } finally {
    kernel.close()
    unmap(region.address, plan.lengthBytes)
    rewindScratch(mark)
  }
}

function checkNotification({ error: code, unique, length, payload }: Reply): void {
  const fixed = FIXED[code]
  if (fixed === undefined || unique !== 0n) throw new Error(`notification ${code} of unique ${unique} reached the kernel`)
  const named = NAMELEN_AT[code]
  if (named === undefined) {
    if (length !== FuseOutHeader.SIZE + fixed) throw new Error(`notification ${code} of ${length} bytes`)
    return
  }
  const name = Buffer.from(payload.subarray(fixed))
  const bytes = Buffer.from(payload).readUInt32LE(named)
  if (bytes === 0 || bytes > 1024 || name.length !== bytes + 1 || name.indexOf(0) !== bytes || name.includes('/')) throw new Error(`notification ${code} with the name ${JSON.stringify(name.toString('latin1'))}`)
}
