/** Loaded by a queue worker whose device serves a directory. */
import type { DeviceHost, Handlers } from './handlers.js'
import { Passthrough } from './passthrough/passthrough.js'
import type { PassthroughShared } from './passthrough/shared.js'

export function createHandlers(data: unknown, host: DeviceHost): Handlers {
  return new Passthrough(data as PassthroughShared, host.windowFd)
}
