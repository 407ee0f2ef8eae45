/** `virtiofs-bridge relay`: the far end of a mount on another host. */
import { isatty } from 'node:tty'
import { UsageError } from '../lib/errors.js'
import { probeDevice } from '../lib/mount/device.js'
import { mountTimeoutMs, pollMicroseconds, type MountOptions } from '../lib/mount/options.js'
import { farOptions } from '../lib/mount/relay-options.js'
import { parseSource, type Source } from '../lib/mount/source.js'
import { serveFarEnd, ToldError } from '../lib/relay/far-session.js'
import { StreamEndedError } from '../lib/relay/handshake.js'
import { ExitCode } from './exit-codes.js'

const STDIN = 0
const STDOUT = 1

/** @returns the exit code @throws what the session throws */
export async function relayCommand(source: string, options: MountOptions): Promise<number> {
  const wrong = whatIsWrong(source, options)
  if (isatty(STDIN) || isatty(STDOUT)) throw wrong ?? new UsageError('relay talks to another virtiofs-bridge on its standard input and output, and they are a terminal')
  // a tag that nobody chose need not be free: nothing finds this device by it
  try {
    await serveFarEnd({
      inFd: STDIN, outFd: STDOUT, timeoutMs: mountTimeoutMs(options.mountTimeout), pollUs: pollMicroseconds(options.poll ?? 'off'), traceJson: options.traceJson,
      open: async nearOptions => {
        const merged = farOptions(options, nearOptions)
        return await probeDevice(parseLocal(source, merged), merged)
      },
    })
  } catch (error) {
    // the near end shows nothing of our standard error when it was told by us
    if (error instanceof ToldError) throw error.cause
    // nobody has asked for it, and it could not have been served
    if (error instanceof StreamEndedError) throw wrong ?? error
    throw error
  }
  return ExitCode.OK
}

/** @throws UsageError */
function parseLocal(source: string, options: MountOptions): Source {
  const parsed = parseSource(source, options)
  if (parsed.kind === 'remote') throw new UsageError(`source ${source}: a relay of a relay is not possible`)
  return parsed
}

/** With the source, as far as it can be seen without the near end. */
function whatIsWrong(source: string, options: MountOptions): unknown {
  try {
    parseLocal(source, options)
    return undefined
  } catch (error) {
    return error
  }
}
