/** A file system written in TypeScript, as a device that can be mounted. */
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { UsageError } from '../errors.js'

/** What `serveDevice` made: a source for `mount`. Each mount of it makes a file system of its own. */
export interface ServedDevice {
  /** URL of the module. */
  readonly module: string
  /** A clone of what was given. */
  readonly data: unknown
  readonly async: boolean
  readonly tag: string | undefined
  /** For people: the module's path. */
  readonly name: string
}

export interface ServeOptions {
  /** Given to the constructor, cloned: on the way to its thread it loses functions and prototypes. Memory is shared by SharedArrayBuffer. */
  data?: unknown
  /** Methods may return promises; they run on a thread of their own with an event loop. Default false. */
  async?: boolean
  /** virtio-fs tag; default: the name of the module. */
  tag?: string
}

/**
 * Makes a device of a file system.
 *
 * The module is loaded, and its default export (a class that extends `FileSystem`) constructed, on
 * the thread of the mount's request queue, or with `async` one of its own: `new Class(data)`. The
 * thread of the caller stays free, and can use the mount by synchronous calls.
 *
 * @param module URL of the compiled module: `new URL('./memfs.js', import.meta.url)`
 * @throws UsageError when that is no URL; DataCloneError for data that cannot be cloned
 *
 * @example
 * // memfs.js of this package's examples has a class as its default export
 * const device = serveDevice(new URL('./memfs.js', import.meta.url), { data: { bytes: 2 ** 20 } })
 * await withMount(device, async dir => {
 *   await writeFile(`${dir}/hello.txt`, 'hello')
 *   assert.equal(await readFile(`${dir}/hello.txt`, 'utf8'), 'hello')
 * })
 */
export function serveDevice(module: URL | string, { data, async = false, tag }: ServeOptions = {}): ServedDevice {
  let url: URL
  try {
    url = new URL(module)
  } catch {
    throw new UsageError(`${String(module)} is not a URL: a module is given as new URL('./file.js', import.meta.url)`)
  }
  const name = url.protocol === 'file:' ? fileURLToPath(url) : url.protocol
  return Object.freeze({ module: url.href, data: structuredClone(data), async, tag, name })
}

/** The part of a device's name to make a tag of. */
export function servedName({ name }: ServedDevice): string {
  return basename(name).replace(/\.[cm]?[jt]s$/, '')
}
