/** Stands for a device in another process that a mount was left with, until it is reached again. */
import type { DeviceInfo, Transport } from './transport.js'
import type { WorkerBackend } from './worker-protocol.js'

export class AwayTransport implements Transport {
  readonly info: DeviceInfo

  /** @param info what the device was when it was probed */
  constructor(info: DeviceInfo) {
    this.info = info
  }

  async start(): Promise<WorkerBackend[]> {
    return []
  }

  async stop(): Promise<void> {}

  async close(): Promise<void> {}
}
