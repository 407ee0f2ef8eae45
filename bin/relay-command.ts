/** `virtiofs-bridge relay`: the far end of a mount on another host. */
import { isatty } from 'node:tty'
import { UsageError } from '../lib/errors.js'
import { probeDevice } from '../lib/mount/device.js'
import { mountTimeoutMs, pollMicroseconds, type MountOptions } from '../lib/mount/options.js'
import { farOptions } from '../lib/mount/relay-options.js'
import { parseSource } from '../lib/mount/source.js'
import { serveFarEnd, ToldError } from '../lib/relay/far-session.js'
import { ExitCode, exitCodeOf } from './exit-codes.js'

const STDIN = 0
const STDOUT = 1

/** @returns the exit code @throws what the session throws */
export async function relayCommand(source: string, options: MountOptions): Promise<number> {
  if (isatty(STDIN) || isatty(STDOUT)) throw new UsageError('relay talks to another virtiofs-bridge on its standard input and output, and they are a terminal')
  // a tag that nobody chose need not be free: nothing finds this device by it
  try {
    await serveFarEnd({
      inFd: STDIN, outFd: STDOUT, timeoutMs: mountTimeoutMs(options.mountTimeout), pollUs: pollMicroseconds(options.poll ?? 'off'), traceJson: options.traceJson,
      open: async nearOptions => {
        const merged = farOptions(options, nearOptions)
        const parsed = parseSource(source, merged)
        if (parsed.kind === 'remote') throw new UsageError(`source ${source}: a relay of a relay is not possible`)
        return await probeDevice(parsed, merged)
      },
    })
  } catch (error) {
    // it says so itself: said here too, it would be told twice
    if (error instanceof ToldError) return exitCodeOf(error.cause)
    throw error
  }
  return ExitCode.OK
}
