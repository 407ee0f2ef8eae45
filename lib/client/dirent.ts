/** fs.Dirent of a device's directory. */
import { Dirent as NodeDirent } from 'node:fs'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK } from '../sys/file.js'

/** Node's class takes arguments that its types do not show. */
const Base = NodeDirent as unknown as new (name: string | Buffer, type: number, path: string) => NodeDirent

/** An instance of Node's `fs.Dirent`. */
export class Dirent extends Base {
  readonly #type: number
  override readonly parentPath: string
  override readonly path: string

  /** @param type as in st_mode */
  constructor(name: string | Buffer, type: number, parentPath: string) {
    super(name, 0, parentPath)
    this.#type = type
    this.parentPath = parentPath
    this.path = parentPath
  }

  override isFile(): boolean { return this.#type === S_IFREG }
  override isDirectory(): boolean { return this.#type === S_IFDIR }
  override isSymbolicLink(): boolean { return this.#type === S_IFLNK }
  override isFIFO(): boolean { return this.#type === S_IFIFO }
  override isSocket(): boolean { return this.#type === S_IFSOCK }
  override isBlockDevice(): boolean { return this.#type === S_IFBLK }
  override isCharacterDevice(): boolean { return this.#type === S_IFCHR }
}
