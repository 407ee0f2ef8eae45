/** What is known of a mount by the process that serves it. Documented in docs/output.md, `status --json`. */

export interface MountStatus {
  /** Where it is mounted, the latest place first; none for a mount that is detached. */
  mountpoints: string[]
  source: string
  tag: string
  /** `emulated`, `virtiofsd` (started with the mount), `vhost-user` (somebody else's) or `served` (TypeScript). */
  backend: string
  /** Number under /sys/fs/fuse/connections. */
  connection: number
  /** The process that serves it. */
  pid: number
  /** The process that replaces it when it is killed; 0 without `supervise`. */
  supervisor: number
  /** How often that has happened. */
  restarts: number
  /** When it became usable, as ISO 8601. */
  since: string
  uptimeSeconds: number
  /** `ok`; `gone`: the device has gone, and operations fail; `waiting`: it is away, and they wait for it. */
  health: 'ok' | 'gone' | 'waiting'
  /** Why the device has gone, or ''. */
  reason: string
  requestQueues: number
  queueSize: number
  /** Requests that the device has at this moment. */
  inFlight: number
  requests: number
  errors: number
  bytesRead: number
  bytesWritten: number
  /** Negotiated features of virtio, of vhost-user, and of FUSE. */
  features: string[]
  protocolFeatures: string[]
  fuseVersion: string
  fuseFlags: string[]
  /** What cannot be done here, one line each. */
  notices: string[]
}
