/** A device that does one thing wrong, by name; and one that answers slowly and out of order. */
import { errno } from '../../lib/errors.js'
import { FuseOutHeader } from '../../lib/fuse/abi.js'
import type { MockDevice, TakenRequest } from './mock-device.js'
import type { SeededRandom } from './seeded-random.js'

type Fault = (device: MockDevice, request: TakenRequest) => void

const HEADER = FuseOutHeader.SIZE
const payload = (length: number): Uint8Array => new Uint8Array(length).fill(0x5a)

/**
 * Wrong replies to a request with room for a payload: the request fails with EIO, the ring and all
 * other requests are sound.
 */
export const REPLY_FAULTS: Record<string, Fault> = {
  'a unique of somebody else': (device, request) => device.answer(request, { unique: request.unique + 2n }),
  'a unique that differs in its high half': (device, request) => device.answer(request, { unique: request.unique | (1n << 40n) }),
  'a unique of 0, as notifications have': (device, request) => device.answer(request, { unique: 0n }),
  'a length of 0': (device, request) => device.answer(request, { length: 0 }),
  'a length under 16': (device, request) => device.answer(request, { length: HEADER - 1 }),
  'a length one over the used length': (device, request) => device.answer(request, { payload: payload(8), length: HEADER + 9 }),
  'a length one under the used length': (device, request) => device.answer(request, { payload: payload(8), length: HEADER + 7 }),
  'a used length of 0': (device, request) => device.answer(request, { used: 0 }),
  'a used length under 16': (device, request) => device.answer(request, { used: HEADER - 1, length: HEADER - 1 }),
  'a used length over what was offered': (device, request) => device.answer(request, { used: request.room + 1, length: request.room + 1 }),
  'a used length of 4 GiB − 1': (device, request) => device.answer(request, { used: 0xffff_ffff, length: 0xffff_ffff }),
  'a positive error': (device, request) => device.answer(request, { error: errno.ENOENT }),
  'error −512': (device, request) => device.answer(request, { error: -512 }),
  'error −2^31': (device, request) => device.answer(request, { error: -0x8000_0000 }),
  'an error with payload': (device, request) => device.answer(request, { error: -errno.ENOENT, payload: payload(8) }),
  'a header that was not written': (device, request) => device.answer(request, { unwritten: true, used: HEADER }),
  'nothing written and nothing used': (device, request) => device.answer(request, { unwritten: true }),
}

/** Broken used rings: the device is gone. `request` was not answered before. */
export const RING_FAULTS: Record<string, Fault> = {
  'the same id twice': (device, request) => {
    device.answer(request)
    device.ring.push(request.head, HEADER)
  },
  'an id that was never given out': (device, request) => device.ring.push(request.head + 40, HEADER),
  'an id beyond the ring': (device, request) => device.ring.push(request.head + 0x8000, HEADER),
  'a used index that jumps ahead': device => device.jumpUsedIndex(100),
  'a used index that goes back': device => device.jumpUsedIndex(-1),
}

/** Takes and answers a random part of what there is, in random order. */
export class SlowDevice {
  constructor(readonly device: MockDevice, readonly random: SeededRandom, readonly respond: (request: TakenRequest) => void) {}

  /** One turn: may do nothing. @returns how many it answered */
  turn(): number {
    this.device.take(this.random.below(4))
    let count = this.random.below(Math.min(4, this.device.pending.length + 1))
    const answered = count
    for (; count > 0; count--) this.respond(this.device.pending[this.random.below(this.device.pending.length)]!)
    return answered
  }
}
