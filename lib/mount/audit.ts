/**
 * The audit log of a mount (`audit=FILE`): a JSON line for everything that is opened, closed or
 * changed, by whom, with how much was read and written. Reads that the kernel answers from its
 * cache are the opening's; they do not come here.
 */
import { closeSync, constants, writeSync } from 'node:fs'
import { errorLine } from '../errors.js'
import { Op, opcodeRow } from '../fuse/opcodes.js'
import { openToAppend } from '../sys/append-file.js'
import type { ObservedRequest, RequestObserver } from './request-observer.js'

/** What is said of each opcode. */
const EVENTS: Readonly<Record<number, string>> = {
  [Op.OPEN]: 'open', [Op.CREATE]: 'create', [Op.TMPFILE]: 'create', [Op.RELEASE]: 'close', [Op.MKDIR]: 'mkdir', [Op.MKNOD]: 'mknod', [Op.SYMLINK]: 'symlink',
  [Op.LINK]: 'link', [Op.UNLINK]: 'unlink', [Op.RMDIR]: 'rmdir', [Op.RENAME]: 'rename', [Op.RENAME2]: 'rename', [Op.SETATTR]: 'setattr',
  [Op.SETXATTR]: 'setxattr', [Op.REMOVEXATTR]: 'removexattr', [Op.FALLOCATE]: 'fallocate', [Op.COPY_FILE_RANGE]: 'copy',
}
const BY_NAME = new Map(Object.entries(EVENTS).map(([opcode, event]) => [opcodeRow(Number(opcode))!.name, event]))
const O_ACCMODE = 3
const ACCESS = ['read', 'write', 'read-write', 'read-write']

export class AuditLog {
  readonly #fd: number
  readonly #trouble: (message: string) => void
  /** Bytes by file handle. */
  readonly #transferred = new Map<number, [read: number, written: number]>()
  #text = ''
  #flushing: NodeJS.Immediate | undefined

  /**
   * @param trouble is told when the log cannot be written
   * @throws UsageError when the file cannot be opened
   */
  constructor(path: string, trouble: (message: string) => void) {
    this.#fd = openToAppend(path, 'audit')
    this.#trouble = trouble
  }

  /** To be called before the first request can come. */
  start(observer: RequestObserver): void {
    observer.watchTransfers(transfers => {
      for (const [fh, read, written] of transfers) {
        const sum = this.#transferred.get(fh)
        if (sum) {
          sum[0] += read
          sum[1] += written
        } else {
          this.#transferred.set(fh, [read, written])
        }
      }
    })
    observer.watch({ opcodes: Object.keys(EVENTS).map(Number), callers: true }, request => this.#told(request))
  }

  #told(request: ObservedRequest): void {
    const event = BY_NAME.get(request.op)!
    const { time, path, otherPath, pid, uid, gid, command, flags = 0, fh, error } = request
    const who = { pid, uid, gid, command }
    const failed = error === 0 ? {} : { error: request.errorName }
    if (event === 'close') {
      const [read, written] = this.#transferred.get(fh ?? -1) ?? [0, 0]
      this.#transferred.delete(fh ?? -1)
      this.#write({ time, event, path, read, written })
    } else if (event === 'open' || event === 'create') {
      this.#write({ time, event, path, access: ACCESS[flags & O_ACCMODE], ...(flags & constants.O_TRUNC) !== 0 && { truncate: true }, ...who, ...failed })
    } else {
      this.#write({ time, event, path, ...otherPath !== undefined && { otherPath }, ...who, ...failed })
    }
  }

  #write(record: object): void {
    this.#text += JSON.stringify(record) + '\n'
    this.#flushing ??= setImmediate(() => this.#flush())
  }

  #flush(): void {
    this.#flushing = undefined
    try {
      writeSync(this.#fd, this.#text)
    } catch (error) {
      this.#trouble(`the audit log could not be written: ${errorLine(error)}`)
    }
    this.#text = ''
  }

  close(): void {
    if (this.#flushing) clearImmediate(this.#flushing)
    this.#flush()
    closeSync(this.#fd)
  }
}
