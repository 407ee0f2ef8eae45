/** The contents of a file in memory: pages where something was written, holes elsewhere. */
import { FuseError } from 'virtiofs-bridge'

const PAGE = 4096
const SEEK_DATA = 3

/** How much all files together may take. */
export class PageBudget {
  used = 0

  /** @param most pages */
  constructor(readonly most: number) {}

  /** @throws FuseError ENOSPC, having taken nothing */
  take(pages: number): void {
    if (this.used + pages > this.most) throw new FuseError('ENOSPC')
    this.used += pages
  }
}

export class SparseFile {
  size = 0
  readonly #budget: PageBudget
  readonly #pages = new Map<number, Buffer>()

  constructor(budget: PageBudget) {
    this.#budget = budget
  }

  /** In units of 512 bytes. */
  get blocks(): number {
    return this.#pages.size * (PAGE / 512)
  }

  /** Calls `body` for each page that a range touches, with the part of the page that is meant. */
  #each(offset: number, length: number, body: (page: number, from: number, to: number, done: number) => void): void {
    for (let done = 0; done < length;) {
      const from = (offset + done) % PAGE
      const to = Math.min(PAGE, from + length - done)
      body((offset + done - from) / PAGE, from, to, done)
      done += to - from
    }
  }

  /** @returns how many bytes there were */
  read(into: Uint8Array, offset: number): number {
    const length = Math.max(0, Math.min(into.length, this.size - offset))
    this.#each(offset, length, (page, from, to, done) => {
      const data = this.#pages.get(page)
      if (data === undefined) into.fill(0, done, done + to - from)
      else into.set(data.subarray(from, to), done)
    })
    return length
  }

  /** Puts pages where there are none, zeroed. The size stays. @throws FuseError ENOSPC, having done nothing */
  allocate(offset: number, length: number): void {
    const first = Math.floor(offset / PAGE)
    const end = Math.ceil((offset + length) / PAGE)
    let missing = end - first
    if (missing <= this.#budget.most) for (let page = first; page < end; page++) if (this.#pages.has(page)) missing--
    this.#budget.take(missing)
    for (let page = first; page < end; page++) if (!this.#pages.has(page)) this.#pages.set(page, Buffer.alloc(PAGE))
  }

  write(data: Uint8Array, offset: number): void {
    this.allocate(offset, data.length)
    this.#each(offset, data.length, (page, from, to, done) => this.#pages.get(page)!.set(data.subarray(done, done + to - from), from))
    this.size = Math.max(this.size, offset + data.length)
  }

  #drop(page: number): void {
    if (this.#pages.delete(page)) this.#budget.used--
  }

  /** Takes a range out: it reads as zeros, and whole pages of it take no room. */
  punch(offset: number, end: number): void {
    const first = Math.ceil(offset / PAGE)
    const last = Math.floor(end / PAGE)
    if (first > last) {
      this.#pages.get(last)?.fill(0, offset % PAGE, end % PAGE)
      return
    }
    if (offset % PAGE > 0) this.#pages.get(first - 1)?.fill(0, offset % PAGE)
    if (end % PAGE > 0) this.#pages.get(last)?.fill(0, 0, end % PAGE)
    // a hole of terabytes has few pages in it
    if (last - first < this.#pages.size) for (let page = first; page < last; page++) this.#drop(page)
    else for (const page of this.#pages.keys()) if (page >= first && page < last) this.#drop(page)
  }

  truncate(size: number): void {
    // all that is behind it, so that nothing old comes back when the file grows again
    this.punch(size, Number.MAX_SAFE_INTEGER - PAGE + 1)
    this.size = size
  }

  /** Where data, or else a hole, begins at an offset or behind it. The end of the file is a hole. */
  seek(offset: number, whence: number): number {
    if (offset >= this.size) throw new FuseError('ENXIO')
    const wanted = whence === SEEK_DATA
    const first = Math.floor(offset / PAGE)
    if (this.#pages.has(first) === wanted) return offset
    if (wanted) {
      const next = [...this.#pages.keys()].reduce((least, page) => page > first && page < least ? page : least, Infinity)
      if (next * PAGE >= this.size) throw new FuseError('ENXIO')
      return next * PAGE
    }
    let page = first
    while (this.#pages.has(page)) page++
    return Math.min(page * PAGE, this.size)
  }
}
