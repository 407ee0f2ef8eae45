/** The passthrough file system with a mistake: a MKDIR, which is left to the pool, is an exception there. */
import { MAY_BLOCK, type DeviceHost, type DeviceRequest, type Handlers } from '../../lib/device/handlers.js'
import { createHandlers as createPassthrough } from '../../lib/device/passthrough-handlers.js'
import { Op } from '../../lib/fuse/opcodes.js'

export function createHandlers(data: unknown, host: DeviceHost): Handlers {
  const inner = createPassthrough(data, host)
  return {
    handle(request: DeviceRequest): number {
      if (request.opcode !== Op.MKDIR) return inner.handle(request)
      if (!request.mayBlock) return MAY_BLOCK
      throw new Error('a mistake')
    },
    close: () => inner.close(),
  }
}
