/** A request of the passthrough file system: what each entry of its table does. */
import type { DeviceRequest } from '../handlers.js'
import type { Volume } from './volume.js'

/** @returns as `Handlers.handle` */
export type Operation = (volume: Volume, request: DeviceRequest) => number
