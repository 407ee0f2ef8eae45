/** The kernel's read-ahead of one mount: the window of sequential reading, and what a page fault in a mapping brings. */
import { writeFileSync } from 'node:fs'
import { systemReason } from '../errors.js'

/**
 * FUSE's own is 128 KiB. A request costs as much as copying some 100 KiB, so larger ones read
 * files faster (native-notes/performance.md).
 */
const LOCAL_KIB = 512
/** The kernel asks for one such window while it hands out the one before: 1 Gbit/s with 60 ms there and back (native-notes/relay.md). */
const REMOTE_KIB = 8192

export interface ReadAhead {
  kibibytes: number
  /** What is lost when it cannot be had; '' when nobody asked for it. */
  otherwise: string
}

/** @param bytes the option, if it was given */
export function readAhead(bytes: number | undefined, remote: boolean): ReadAhead {
  if (bytes !== undefined) return { kibibytes: Math.ceil(bytes / 1024), otherwise: 'option readahead has no effect' }
  return remote ? { kibibytes: REMOTE_KIB, otherwise: 'sequential reading is slower than the line allows' } : { kibibytes: LOCAL_KIB, otherwise: '' }
}

/**
 * Sets it; only root may.
 *
 * @param connection number of the FUSE connection, which is the minor of its device; negative where it is not known
 * @returns '' or what to say
 */
export function setReadAhead(connection: number, { kibibytes, otherwise }: ReadAhead): string {
  if (connection < 0) return ''
  try {
    writeFileSync(`/sys/class/bdi/0:${connection}/read_ahead_kb`, String(kibibytes))
    return ''
  } catch (error) {
    return otherwise === '' ? '' : `${otherwise}: ${systemReason(error)}`
  }
}
