/** FORGETs and INTERRUPTs between threads: order, a full ring, counters that wrap, wake-ups that must not be lost. */
import t, { type Test } from 'tap'
import { HiprioRelay, HiprioRelayDrain, allocateRelay } from '../../lib/driver/hiprio-relay.js'
import type { HiprioSink } from '../../lib/driver/hiprio-queue.js'
import { close, createEventfd, drainEventfd } from '../../lib/sys/io.js'
import { SeededRandom } from '../support/seeded-random.js'

const ENTRIES = 1024
const WAITING = 2

/** Writes down what arrives. */
class Recorder implements HiprioSink {
  readonly events: string[] = []
  forget(...words: number[]): void { this.events.push(`forget ${words.join(' ')}`) }
  interrupt(...words: number[]): void { this.events.push(`interrupt ${words.join(' ')}`) }
  flush(): void {}
}

function relay(t: Test): { words: Int32Array, asleep: Int32Array, producer: HiprioRelay, consumer: HiprioRelayDrain, sink: Recorder, woken: (fd: 'consumer' | 'producer') => boolean } {
  const shared = allocateRelay()
  const sleep = new SharedArrayBuffer(8)
  const fds = { consumer: createEventfd(), producer: createEventfd() }
  t.teardown(() => {
    close(fds.consumer)
    close(fds.producer)
  })
  return {
    words: new Int32Array(shared), asleep: new Int32Array(sleep),
    producer: new HiprioRelay(shared, sleep, fds.consumer), consumer: new HiprioRelayDrain(shared, fds.producer), sink: new Recorder(),
    woken: fd => drainEventfd(fds[fd]) > 0,
  }
}

t.test('all 64 bits of both values arrive, in order', async t => {
  const { producer, consumer, sink } = relay(t)
  producer.forget(0xffff_ffff, 0x8000_0000, 1, 0xffff_fffe)
  producer.interrupt(0xdead_beef, 0xcafe_babe)
  t.notOk(consumer.hasSome(), 'not before a flush')
  producer.flush()
  t.ok(consumer.hasSome())
  t.equal(consumer.drainTo(sink), 2)
  t.notOk(consumer.hasSome())
  t.strictSame(sink.events, [`interrupt ${0xdead_beef} ${0xcafe_babe}`, `forget ${0xffff_ffff} ${0x8000_0000} 1 ${0xffff_fffe}`], 'INTERRUPT goes first')
  t.equal(consumer.drainTo(sink), 0)
})

t.test('a consumer is woken only when it sleeps and there is something', async t => {
  const { producer, asleep, woken } = relay(t)
  producer.forget(1, 0, 1, 0)
  producer.flush()
  t.notOk(woken('consumer'), 'it is awake')
  asleep[0] = 1
  producer.flush()
  t.notOk(woken('consumer'), 'nothing new')
  producer.forget(2, 0, 1, 0)
  producer.flush()
  t.ok(woken('consumer'))
})

t.test('a full ring keeps the rest in order and wakes the producer once there is room', async t => {
  const { producer, consumer, sink, woken } = relay(t)
  for (let i = 0; i < 3000; i++) producer.forget(i, 0, 1, 0)
  producer.flush()
  t.equal(consumer.drainTo(sink), ENTRIES)
  t.ok(woken('producer'))
  producer.flush()
  producer.forget(3000, 0, 1, 0)
  producer.flush()
  t.equal(consumer.drainTo(sink), ENTRIES)
  t.ok(woken('producer'))
  producer.flush()
  t.equal(consumer.drainTo(sink), 3001 - 2 * ENTRIES)
  t.strictSame(sink.events, Array.from({ length: 3001 }, (_, i) => `forget ${i} 0 1 0`))
  t.notOk(woken('producer'), 'nobody waits any more')
})

t.test('the counters wrap at 2^31', async t => {
  for (const start of [0x7fff_ffff - 500, -1 - 500]) {
    const { producer, consumer, sink, words } = relay(t)
    words[0] = words[1] = start
    const random = new SeededRandom(31)
    let pushed = 0
    while (pushed < 20_000) {
      // the first time more than fits, so that the ring is full where the counters wrap
      for (let n = pushed === 0 ? 3000 : random.below(700); n > 0; n--) producer.forget(pushed++, 0, 1, 0)
      producer.flush()
      const inRing = (words[1]! - words[0]!) | 0
      if (inRing < 0 || inRing > ENTRIES) return t.fail(`${inRing} entries in a ring of ${ENTRIES}, from ${start}`)
      if (random.below(2) === 0) consumer.drainTo(sink)
    }
    for (let i = 0; i < 100; i++) {
      producer.flush()
      consumer.drainTo(sink)
    }
    t.equal(sink.events.length, pushed)
    t.ok(sink.events.every((event, i) => event === `forget ${i} 0 1 0`), 'in order')
  }
})

t.test('room made just before the producer says that it waits is not overlooked', async t => {
  const { producer, consumer, sink, words, woken } = relay(t)
  const store = Atomics.store.bind(Atomics) as typeof Atomics.store
  let races = 0
  // the other thread drains everything between the producer's last look and its word that it waits
  t.intercept(Atomics, 'store', {
    value: (array: Int32Array, index: number, value: number) => {
      if (array.buffer === words.buffer && index === WAITING && value === 1 && races++ === 0) consumer.drainTo(sink)
      return store(array, index, value)
    },
  })
  for (let i = 0; i < ENTRIES + 10; i++) producer.forget(i, 0, 1, 0)
  producer.flush()
  t.equal(races, 1)
  t.ok(woken('producer') || consumer.hasSome(), 'the producer is woken, or has gone on by itself')
  consumer.drainTo(sink)
  t.equal(sink.events.length, ENTRIES + 10)
})
