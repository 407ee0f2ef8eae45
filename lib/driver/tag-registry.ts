/**
 * The virtio-fs devices of this process by tag. Port of virtio_fs_add_instance and
 * virtio_fs_find_instance, with a Map where those walk a list.
 */
import { UsageError } from '../errors.js'

export class TagInUseError extends Error {
  readonly code = 'EEXIST'

  constructor(tag: string) {
    super(`tag "${tag}" is in use`)
    this.name = 'TagInUseError'
  }
}

export class TagRegistry<Device> {
  readonly #devices = new Map<string, Device>()

  /** @throws TagInUseError (EEXIST); UsageError (EINVAL) for an empty tag or one with a newline */
  add(tag: string, device: Device): void {
    if (tag === '') throw new UsageError('the tag is empty')
    if (tag.includes('\n')) throw new UsageError(`tag ${JSON.stringify(tag)} contains a newline`)
    if (this.#devices.has(tag)) throw new TagInUseError(tag)
    this.#devices.set(tag, device)
  }

  find(tag: string): Device | undefined {
    return this.#devices.get(tag)
  }

  /** Removes a device; nobody finds it any more. */
  remove(tag: string, device: Device): void {
    if (this.#devices.get(tag) === device) this.#devices.delete(tag)
  }
}
