/** The memory plan: for every size and number of queues, no two parts overlap and all lie inside. */
import t from 'tap'
import { FuseInHeader, FuseOutHeader, FuseStatxOut, FuseWriteIn } from '../../lib/fuse/abi.js'
import { opcodeRows, replyFixedBytes } from '../../lib/fuse/opcodes.js'
import { HiprioSlot, MAX_WRITE, planMemory, REQUEST_HEAD_BYTES, Slot, type MemoryPlan } from '../../lib/driver/memory-plan.js'
import { VirtqDesc, type RingLayout } from '../../lib/virtio/split-ring.js'

const PAGE = 4096
interface Part { name: string, from: number, to: number }

function ringParts(name: string, ring: RingLayout): Part[] {
  return [
    { name: `${name} descriptors`, from: ring.desc, to: ring.desc + 16 * ring.size },
    { name: `${name} avail`, from: ring.avail, to: ring.avail + 6 + 2 * ring.size },
    { name: `${name} used`, from: ring.used, to: ring.used + 6 + 8 * ring.size },
  ]
}

function parts(plan: MemoryPlan): Part[] {
  const all = ringParts('hiprio', plan.hiprio)
  for (let i = 0; i < plan.hiprio.size; i++) {
    const at = plan.hiprioSlots + i * HiprioSlot.SIZE
    all.push({ name: `hiprio message ${i}`, from: at + HiprioSlot.MESSAGE, to: at + HiprioSlot.MESSAGE + HiprioSlot.MESSAGE_BYTES })
    all.push({ name: `hiprio table ${i}`, from: at + HiprioSlot.TABLE, to: at + HiprioSlot.TABLE + VirtqDesc.SIZE })
  }
  plan.workers.forEach((worker, w) => {
    all.push(...ringParts(`queue ${w}`, worker.ring))
    for (let i = 0; i < worker.slotCount; i++) {
      const at = worker.slots + i * Slot.SIZE
      all.push({ name: `request ${w}.${i}`, from: at + Slot.IN, to: at + Slot.IN + Slot.IN_BYTES })
      all.push({ name: `reply ${w}.${i}`, from: at + Slot.OUT, to: at + Slot.OUT + Slot.OUT_BYTES })
      all.push({ name: `table ${w}.${i}`, from: at + Slot.TABLE, to: at + Slot.TABLE + Slot.TABLE_LENGTH * VirtqDesc.SIZE })
      all.push({ name: `page ${w}.${i}`, from: at + Slot.PAGE, to: at + Slot.PAGE + PAGE })
    }
    for (let i = 0; i < worker.largeCount; i++) all.push({ name: `large ${w}.${i}`, from: worker.large + i * MAX_WRITE, to: worker.large + (i + 1) * MAX_WRITE })
  })
  const { notification } = plan
  if (notification) {
    all.push(...ringParts('notification', notification.ring))
    for (let i = 0; i < notification.ring.size; i++) {
      const at = notification.buffers + i * notification.bufferBytes
      all.push({ name: `notification ${i}`, from: at, to: at + notification.bufferBytes })
      const table = notification.tables + i * VirtqDesc.SIZE
      all.push({ name: `notification table ${i}`, from: table, to: table + VirtqDesc.SIZE })
    }
  }
  return all
}

function overlap(plan: MemoryPlan): string {
  const all = parts(plan).sort((a, b) => a.from - b.from)
  if (all[0]!.from < 0) return `${all[0]!.name} is before the memory`
  for (let i = 1; i < all.length; i++) {
    if (all[i]!.from < all[i - 1]!.to) return `${all[i]!.name} overlaps ${all[i - 1]!.name}`
  }
  return all.at(-1)!.to > plan.lengthBytes ? `${all.at(-1)!.name} is behind the memory` : ''
}

t.test('no overlap, payload on pages, over sizes and queues', async t => {
  for (const indirectDesc of [false, true]) {
    for (let queueSize = 4; queueSize <= 1024; queueSize *= 2) {
      for (const queues of [1, 2, 3, 8, 17]) {
        for (const largeBuffers of [2, 5, 32]) {
          const plan = planMemory({ queues, queueSize, indirectDesc, largeBuffers })
          const name = `${queues} queues of ${queueSize}, ${largeBuffers} large buffers`
          const wrong = overlap(plan)
          if (wrong !== '') return t.fail(`${name}: ${wrong}`)
          if (plan.workers.length !== queues || plan.hiprio.size !== queueSize || plan.lengthBytes % PAGE !== 0) return t.fail(name)
          for (const worker of plan.workers) {
            if (worker.slotCount < queueSize || worker.largeCount !== largeBuffers || worker.ring.size !== queueSize) return t.fail(`${name}: counts`)
            if ((worker.slots + Slot.PAGE) % PAGE !== 0 || worker.large % PAGE !== 0 || worker.ring.desc % 16 !== 0) return t.fail(`${name}: alignment`)
          }
        }
      }
    }
  }
  t.pass('no two parts share a byte')
})

t.test('the notification queue', async t => {
  for (const notifyBufBytes of [0, 64, 65, 304, 4096, 65536]) {
    for (const queueSize of [4, 128, 1024]) {
      const plan = planMemory({ queues: 2, queueSize, indirectDesc: true, largeBuffers: 2, notifyBufBytes })
      t.equal(overlap(plan), '', `${queueSize} buffers of ${notifyBufBytes} bytes`)
      t.equal(plan.lengthBytes % PAGE, 0)
      const without = planMemory({ queues: 2, queueSize, indirectDesc: true, largeBuffers: 2 })
      t.strictSame({ ...plan, notification: undefined, lengthBytes: 0 }, { ...without, notification: undefined, lengthBytes: 0 }, 'nothing else moves')
      if (notifyBufBytes === 0) t.equal(plan.notification, undefined)
      else t.ok(plan.notification!.bufferBytes >= notifyBufBytes && plan.notification!.tables % 16 === 0 && plan.notification!.ring.size === queueSize)
    }
  }
})

t.test('a slot holds what it has to', async t => {
  t.equal(Slot.SIZE % PAGE, 0)
  t.equal(Slot.PAGE % PAGE, 0)
  t.equal(MAX_WRITE % PAGE, 0)
  t.equal(REQUEST_HEAD_BYTES, FuseInHeader.SIZE + FuseWriteIn.SIZE)
  t.ok(Slot.IN_BYTES >= REQUEST_HEAD_BYTES)
  t.equal(Slot.TABLE % 16, 0, 'descriptors are aligned')
  t.equal(HiprioSlot.TABLE % 16, 0)
  t.equal(HiprioSlot.SIZE % 16, 0)
  const largest = Math.max(...opcodeRows.map(row => replyFixedBytes(row.opcode)))
  t.equal(largest, FuseOutHeader.SIZE + FuseStatxOut.SIZE)
  t.ok(largest <= Slot.OUT_BYTES)
})

t.test('sizes that no ring has', async t => {
  for (const queueSize of [0, 1, 2, 3, 5, 100, 1023, 2048, 4.5, NaN]) {
    t.throws(() => planMemory({ queues: 1, queueSize, indirectDesc: true, largeBuffers: 2 }), RangeError, `${queueSize}`)
  }
})
