/** A shell that unmounts when this process has ended without doing it, however it ended: its input ends then. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { FS_TYPE } from './mountinfo.js'

const UNMOUNT = 'umount -l "$1" || fusermount3 -uz "$1"'

/** A directory of its own, and whatever is mounted there. */
const OF_DIRECTORY = `read -r done || { ${UNMOUNT}; rmdir "$1"; }`

/** All places of the connection of this number, which no other mount can have while it is mounted. The kernel writes blanks as \040. */
const OF_CONNECTION = `read -r done && exit
sed -n "s|^[0-9]* [0-9]* 0:$1 [^ ]* \\([^ ]*\\) .* - ${FS_TYPE.replaceAll('.', '\\.')} .*|\\1|p" /proc/self/mountinfo | sed 's/\\\\/\\\\0/g' | while read -r path; do
  set -- "$(printf %b "$path")"
  ${UNMOUNT}
done`

export class Guard {
  readonly #child: ChildProcess

  private constructor(script: string, argument: string) {
    // detached: Ctrl-C at the terminal is not for it
    this.#child = spawn('sh', ['-c', script, 'sh', argument], { stdio: ['pipe', 'ignore', 'ignore'], detached: true, cwd: '/' })
    this.#child.on('error', () => {})
    this.#child.stdin!.on('error', () => {})
    this.#child.unref()
    ;(this.#child.stdin as unknown as { unref: () => void }).unref()
  }

  /** Unmounts and removes a directory. @param path from the root */
  static ofDirectory(path: string): Guard {
    return new Guard(OF_DIRECTORY, path)
  }

  /** Unmounts a mount wherever it is. */
  static ofConnection(connection: number): Guard {
    return new Guard(OF_CONNECTION, String(connection))
  }

  /** Nothing is left to be done, or all of it is. */
  async dismiss({ unmount = false } = {}): Promise<void> {
    const { pid, exitCode, signalCode } = this.#child
    if (pid === undefined || exitCode !== null || signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.ref()
    this.#child.stdin!.end(unmount ? '' : 'done\n')
    await ended
  }
}
