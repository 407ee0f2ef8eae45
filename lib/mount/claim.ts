/** A device and its tag: both, or neither. */
import type { FaultControl } from '../device/faults.js'
import type { Transport } from '../driver/transport.js'
import { probeDevice } from './device.js'
import { LiveTag } from './live-tags.js'
import type { MountOptions } from './options.js'
import type { Source } from './source.js'

/**
 * Reaches the device and takes its tag, which no other process may have. A tag that nobody chose
 * gives way to one that is in use.
 */
export async function claimDevice(source: Source, options: MountOptions, faults: FaultControl | undefined): Promise<{ transport: Transport, live: LiveTag }> {
  const chosen = options.tag !== undefined || options.socket !== undefined
  if (source.kind === 'socket') {
    const transport = await probeDevice(source, options)
    try {
      const live = chosen || transport.info.ownTag ? await LiveTag.claim(transport.info.tag) : await LiveTag.claimLike(transport.info.tag)
      transport.info.tag = live.tag
      return { transport, live }
    } catch (error) {
      await transport.close()
      throw error
    }
  }
  const live = chosen ? await LiveTag.claim(source.tag) : await LiveTag.claimLike(source.tag)
  try {
    return { transport: await probeDevice({ ...source, tag: live.tag }, options, faults), live }
  } catch (error) {
    live.release()
    throw error
  }
}
