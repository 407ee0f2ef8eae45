/** Open files and directories by the number that libfuse knows them by. */
import { FileIo } from '../client/file-io.js'
import type { OpenFile } from '../client/open-file.js'
import type { Tree } from '../client/tree.js'

export class OpenFiles {
  readonly #tree: Tree
  readonly #files = new Map<number, FileIo>()
  /** 0 stands for none. */
  #next = 1

  constructor(tree: Tree) {
    this.#tree = tree
  }

  /** Takes a file over, to release it later. @returns its number: the addon passes 32 bits of it */
  add(file: OpenFile): number {
    while (this.#files.has(this.#next)) this.#step()
    const number = this.#next
    this.#step()
    this.#files.set(number, new FileIo(this.#tree, file))
    return number
  }

  #step(): void {
    this.#next = this.#next === 0x7fff_ffff ? 1 : this.#next + 1
  }

  get(number: number): FileIo | undefined {
    return this.#files.get(number)
  }

  /** RELEASE goes to the device. */
  release(number: number): void {
    this.#files.get(number)?.file.drop()
    this.#files.delete(number)
  }

  releaseAll(): void {
    for (const number of [...this.#files.keys()]) this.release(number)
  }
}
