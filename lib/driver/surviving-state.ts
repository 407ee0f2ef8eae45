/**
 * What a mount with a supervisor keeps for the process that serves it next: the kernel's numbers of
 * nodes and open files, which requests are in hand, the INIT that devices are greeted with, and what
 * is known of the root.
 */
import { FuseAttrOut, FuseStatfsOut } from '../fuse/abi.js'
import { Op } from '../fuse/opcodes.js'
import type { HandleTable } from './handle-table.js'
import type { NodeTable } from './node-table.js'
import { ENTRY_BYTES, RequestsInHand } from './requests-in-hand.js'
import { FORMAT, KEPT_AT, STATE_PAGE, StateWord, type StateMemory } from './state-memory.js'
import { SurvivingTables } from './surviving-tables.js'

const MOST_INIT_BYTES = 512
const ATTRIBUTES_AT = KEPT_AT + MOST_INIT_BYTES
const STATISTICS_AT = ATTRIBUTES_AT + FuseAttrOut.SIZE
/** Of names: a rename, and what it exchanges. Longer ones have no path (known-nodes.ts). */
const MOST_NAME_BYTES = 512

export class SurvivingState {
  readonly hands: RequestsInHand
  /** Whether an earlier process has left it. */
  readonly inherited: boolean
  readonly #memory: StateMemory
  readonly #tables: SurvivingTables

  /** @param nodes with `handles`, new ones: they are filled with what there is */
  constructor(memory: StateMemory, slotCount: number, nodes: NodeTable, handles: HandleTable) {
    this.#memory = memory
    // requests of this process, and those of the one before that have not come again
    const capacity = 2 * slotCount
    const areas = Math.ceil((STATE_PAGE + capacity * ENTRY_BYTES) / STATE_PAGE) * STATE_PAGE
    memory.ensure(areas)
    memory.recover()
    this.hands = new RequestsInHand(memory, STATE_PAGE, capacity, slotCount)
    this.#tables = new SurvivingTables(memory, areas, nodes, handles)
    this.inherited = memory.word(StateWord.FORMAT) === FORMAT
  }

  /** What follows, up to `end`, is kept as a whole or not at all. */
  begin(): void {
    this.#tables.prepare(2, MOST_NAME_BYTES)
    this.#memory.begin()
  }

  end(): void {
    this.#memory.end()
  }

  /** The INIT that the kernel has sent: from its answer on there is something to inherit. */
  keepInit(init: Uint8Array): void {
    const length = Math.min(init.length, MOST_INIT_BYTES)
    this.#memory.putBytes(KEPT_AT, init, 0, length)
    this.#memory.put(StateWord.INIT_BYTES, length)
    this.#memory.commit(StateWord.FORMAT, FORMAT)
  }

  init(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#memory.bytes.subarray(KEPT_AT, KEPT_AT + this.#memory.word(StateWord.INIT_BYTES)))
  }

  /** Keeps an answer about the root. @param at byte where its arguments are */
  keepRoot(opcode: number, bytes: Uint8Array, at: number): void {
    const attributes = opcode === Op.GETATTR
    this.#memory.putBytes(attributes ? ATTRIBUTES_AT : STATISTICS_AT, bytes, at, attributes ? FuseAttrOut.SIZE : FuseStatfsOut.SIZE)
    this.#memory.commit(StateWord.ROOT, this.#memory.word(StateWord.ROOT) | (attributes ? 1 : 2))
  }

  /** Tells what is known of the root. @param tell called with an opcode, and bytes with the place of its arguments */
  eachOfRoot(tell: (opcode: number, bytes: Uint8Array, at: number) => void): void {
    const known = this.#memory.word(StateWord.ROOT)
    if ((known & 1) !== 0) tell(Op.GETATTR, this.#memory.bytes, ATTRIBUTES_AT)
    if ((known & 2) !== 0) tell(Op.STATFS, this.#memory.bytes, STATISTICS_AT)
  }
}
