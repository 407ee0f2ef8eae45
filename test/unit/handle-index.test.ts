/** The index of inode records by file handle, against a plain map, with colliding hashes and through its levels. */
import t from 'tap'
import { HandleIndex, HANDLE_AT } from '../../lib/device/passthrough/handle-index.js'
import { Head, planLayout, RECORD_WORDS } from '../../lib/device/passthrough/layout.js'
import { SeededRandom } from '../support/seeded-random.js'

function bench(capacity: number) {
  const layout = planLayout(capacity, 16, 16, true)
  const words = new Int32Array(layout.words)
  const index = new HandleIndex(words, layout)
  const handle = new Int32Array(12)
  return {
    words, index,
    /** Gives a record a handle. */
    set(record: number, bytes: number, ...values: number[]): void {
      const at = layout.recordsAt + record * RECORD_WORDS + HANDLE_AT
      words.fill(0, at, at + 12)
      words.set([bytes, 1, ...values], at)
    },
    find(bytes: number, ...values: number[]): number[] {
      handle.fill(0)
      handle.set([bytes, 1, ...values])
      return index.find(handle, 0).sort((a, b) => a - b)
    },
  }
}

t.test('finds what is there', async t => {
  const { index, words, set, find } = bench(100)
  t.strictSame(find(8, 1, 2), [])
  set(1, 8, 1, 2)
  set(2, 8, 1, 3)
  set(3, 8, 1, 2)
  set(4, 5, 1, 2)
  for (const record of [1, 2, 3, 4]) index.add(record)
  t.strictSame(find(8, 1, 2), [1, 3], 'one inode on two mounts')
  t.strictSame(find(8, 1, 3), [2])
  t.strictSame(find(5, 1, 2), [4], 'the length counts')
  t.strictSame(find(4, 1), [])
  index.remove(1)
  t.strictSame(find(8, 1, 2), [3])
  index.remove(1)
  t.equal(words[Head.BY_HANDLE_USED], 3, 'what is not there is not removed')
  for (const record of [2, 3, 4]) index.remove(record)
  t.equal(words[Head.BY_HANDLE_USED], 0)
  t.equal(words[Head.BY_HANDLE_MOVES]! % 2, 0)
})

t.test('as a map does it, over several levels', async t => {
  const capacity = 40_000
  const { index, words, set, find } = bench(capacity)
  const random = new SeededRandom(11)
  const handles: (number | undefined)[] = new Array<undefined>(capacity).fill(undefined)
  const by = new Map<number, number>()
  for (let round = 0; round < 120_000; round++) {
    const record = random.between(1, capacity - 1)
    const old = handles[record]
    if (old === undefined || round < 50_000) {
      if (old !== undefined) continue
      const value = round * 7919
      set(record, 8, value | 0, 5)
      index.add(record)
      handles[record] = value
      by.set(value, record)
    } else {
      index.remove(record)
      handles[record] = undefined
      by.delete(old)
      if (find(8, old | 0, 5).length !== 0) t.fail(`record ${record} is still there`)
    }
  }
  t.ok(words[Head.BY_HANDLE_LEVEL]! >= 1, `level ${words[Head.BY_HANDLE_LEVEL]}`)
  t.equal(words[Head.BY_HANDLE_USED], by.size)
  let wrong = 0
  for (const [value, record] of by) if (find(8, value | 0, 5)[0] !== record) wrong++
  t.equal(wrong, 0)
})
