/**
 * Where a mount that has no terminal says what happens to it: syslog, the journal, or a file. A
 * handful of lines in its life, so each is written at once and on its own.
 */
import { appendFileSync, closeSync, existsSync } from 'node:fs'
import { UsageError } from '../errors.js'
import { openToAppend } from '../sys/append-file.js'
import { sendDatagram } from '../sys/socket.js'
import { absolutePath } from './absolute.js'

/** Severities of syslog(3). */
export const Severity = { ERROR: 3, WARNING: 4, INFO: 6 } as const
export type Severity = (typeof Severity)[keyof typeof Severity]

const SYSLOG_SOCKET = '/dev/log'
const JOURNAL_SOCKET = '/run/systemd/journal/socket'
const FACILITY_DAEMON = 3 << 3
const NAME = 'virtiofs-bridge'

export interface Log {
  write(severity: Severity, message: string): void
}

/** One line each; a message is never the reason of a failure, so one that cannot be sent is lost. */
function syslog(): Log {
  return { write: (severity, message) => { sendDatagram(SYSLOG_SOCKET, `<${FACILITY_DAEMON | severity}>${NAME}[${process.pid}]: ${message}`) } }
}

/** The journal's own protocol (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md). */
function journal(): Log {
  return { write: (severity, message) => { sendDatagram(JOURNAL_SOCKET, `PRIORITY=${severity}\nSYSLOG_IDENTIFIER=${NAME}\nSYSLOG_PID=${process.pid}\nMESSAGE=${message}\n`) } }
}

/** @param path from the root: the process goes there */
function file(path: string): Log {
  return {
    write: (severity, message) => {
      const word = severity === Severity.ERROR ? 'error: ' : severity === Severity.WARNING ? 'warning: ' : ''
      try {
        appendFileSync(path, `${new Date().toISOString()} ${NAME}[${process.pid}]: ${word}${message}\n`, { mode: 0o600 })
      } catch {
        // a full disk, a directory that went
      }
    },
  }
}

/**
 * @param where `syslog`, `journal`, `none`, the path of a file; undefined for syslog where there is one
 * @throws UsageError when it is not there, or the file cannot be opened
 */
export function openLog(where: string | undefined): Log {
  const socket = where === 'syslog' ? SYSLOG_SOCKET : where === 'journal' ? JOURNAL_SOCKET : undefined
  if (socket !== undefined && !existsSync(socket)) throw new UsageError(`option log=${where}: there is no ${socket}`, 'ENOENT')
  if (where === 'journal') return journal()
  if (where === 'syslog' || (where === undefined && existsSync(SYSLOG_SOCKET))) return syslog()
  if (where === undefined || where === 'none') return { write: () => {} }
  closeSync(openToAppend(where, 'log'))
  return file(absolutePath(where))
}
