/**
 * The configuration space of a virtio-fs device (virtio 1.2 §5.11.4).
 */
import { UsageError } from '../errors.js'
import { defineStruct } from '../wire/struct.js'

export const VIRTIO_FS_TAG_BYTES = 36

export const VirtioFsConfig = defineStruct('virtio_fs_config', 40, { tag: 'bytes:36', num_request_queues: 'u32' })
/** Present only with VIRTIO_FS_F_NOTIFICATION. */
export const VirtioFsNotifyConfig = defineStruct('virtio_fs_config', 44, {
  tag: 'bytes:36', num_request_queues: 'u32', notify_buf_size: 'u32',
})

/** A buffer has to hold at least a notification without a name. */
const LEAST_NOTIFY_BYTES = 64
const MOST_NOTIFY_BYTES = 65536

export interface FsConfig {
  tag: string
  numRequestQueues: number
  /** Bytes of a notification buffer; only when the bytes hold that field. */
  notifyBufSize?: number
}

/**
 * Reads and checks it, as the probe of Linux `virtio_fs.c` does.
 *
 * @param bytes 40, or 44 when NOTIFICATION was negotiated
 * @throws UsageError (EPROTO): too short, an empty tag, one with a newline or that is not UTF-8, no request queue, or
 * buffers for notifications of an impossible size
 */
export function parseFsConfig(bytes: Uint8Array): FsConfig {
  if (bytes.length < VirtioFsConfig.SIZE) {
    throw unfit(`virtio-fs configuration has ${bytes.length} bytes, expected ${VirtioFsConfig.SIZE}`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const numRequestQueues = view.getUint32(VirtioFsConfig.num_request_queues, true)
  const tag = parseTag(bytes.subarray(0, VIRTIO_FS_TAG_BYTES))
  if (numRequestQueues === 0) throw unfit(`virtio-fs device "${tag}" has no request queue`)
  const config: FsConfig = { tag, numRequestQueues }
  if (bytes.length >= VirtioFsNotifyConfig.SIZE) {
    const size = config.notifyBufSize = view.getUint32(VirtioFsNotifyConfig.notify_buf_size, true)
    if (size < LEAST_NOTIFY_BYTES || size > MOST_NOTIFY_BYTES) {
      throw unfit(`virtio-fs device "${tag}" has notify_buf_size ${size}, expected ${LEAST_NOTIFY_BYTES} to ${MOST_NOTIFY_BYTES}`)
    }
  }
  return config
}

/** A tag of 36 bytes has no terminator. */
function parseTag(field: Uint8Array): string {
  const end = field.indexOf(0)
  const name = end < 0 ? field : field.subarray(0, end)
  if (name.length === 0) throw unfit('virtio-fs device has an empty tag')
  let tag: string
  try {
    tag = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(name)
  } catch {
    throw unfit(`virtio-fs device has a tag that is not UTF-8: ${Buffer.from(name).toString('hex')}`)
  }
  if (tag.includes('\n')) throw unfit(`virtio-fs device has a tag with a newline: ${JSON.stringify(tag)}`)
  return tag
}

function unfit(message: string): UsageError {
  return new UsageError(message, 'EPROTO')
}
