/** What outlives a link to a far end, when its session does (on_disconnect=wait). */
import { randomBytes } from 'node:crypto'
import type { FarIdentity } from './far-identity.js'
import type { NearText } from './hello.js'

/** One that was removed is nobody's any more. */
function workingDirectory(): string | undefined {
  try {
    return process.cwd()
  } catch {
    return undefined
  }
}

export class RelaySession {
  /** Known to nobody else: who has it may end a far end of this session. */
  readonly #token = randomBytes(16).toString('hex')
  /** The far end that was reached last. */
  before: FarIdentity | undefined
  /** Where its command is started, each time: its words may be paths from there. */
  readonly directory = workingDirectory()

  /** For the hello of the next link. */
  get text(): Pick<NearText, 'session' | 'before'> {
    return { session: this.#token, ...this.before && { before: this.before } }
  }
}
