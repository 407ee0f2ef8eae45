/** Serving a mount with a supervisor, which has started this process. */
import { once } from 'node:events'
import type { Worker } from 'node:worker_threads'
import type { FromServer, ToServer } from '../lib/control/supervisor-protocol.js'
import { ServerFd } from '../lib/control/supervisor-protocol.js'
import { offerQueueThread } from '../lib/driver/queue-thread.js'
import { errorLine } from '../lib/errors.js'
import { openLog } from '../lib/mount/log.js'
import type { Supervision } from '../lib/mount/supervision.js'
import { check } from '../lib/sys/libc.js'
import { close } from '../lib/sys/io.js'
import { closeOnExec } from '../lib/sys/mount.js'
import { sendmsg } from '../lib/sys/socket-message.js'
import { detach } from './detach.js'
import { endBy } from './exit-codes.js'
import { mountCommand, terminal } from './mount-command.js'

let over = false

function say(message: FromServer): Promise<void> {
  return new Promise(resolve => { process.send!(message, () => resolve()) })
}

function supervise({ supervisor, inherited }: Extract<ToServer, { type: 'serve' }>): Supervision {
  return {
    pid: supervisor,
    stateFd: ServerFd.STATE,
    ...inherited && { inherited: { ...inherited, fuseFd: ServerFd.FUSE, tagFd: ServerFd.TAG } },
    handOver: async (facts, fuseFd, tagFd) => {
      // the supervisor has its own of a mount that it has given us
      if (inherited) return
      check(sendmsg(ServerFd.HANDOVER, Uint8Array.of(0), [fuseFd, tagFd]), 'sendmsg', 'to the supervisor')
      const held = once(process, 'message')
      await say({ type: 'mounted', facts })
      await held
      close(ServerFd.HANDOVER)
    },
    replaced: target => { void say({ type: 'replaced', target }) },
    failed: reason => {
      process.send!({ type: 'failed', reason } satisfies FromServer)
      // at once, for others wait: nothing has to be put in order
      process.kill(process.pid, 'SIGKILL')
    },
  }
}

/** @param thread for the first queue @returns the exit code; where another process may go on, this one ends instead */
export async function serveSupervised(serve: Extract<ToServer, { type: 'serve' }>, thread: Worker): Promise<number> {
  offerQueueThread(thread)
  const { request, background, inherited } = serve
  for (const fd of [ServerFd.CHANNEL, ServerFd.STATE, ServerFd.FUSE, ...inherited ? [ServerFd.TAG] : []]) closeOnExec(fd)
  // nobody would replace this process any more: the mount ends
  process.on('disconnect', () => { if (!over) process.kill(process.pid, 'SIGTERM') })
  try {
    const log = background || request.options?.log !== undefined ? openLog(request.options?.log) : terminal
    const code = await mountCommand(request, () => {
      void say({ type: 'usable' })
      if (background) detach()
    }, log, supervise(serve))
    over = true
    await say({ type: 'ended' })
    return code
  } catch (error) {
    over = true
    if (inherited) {
      // the mount is there still, and another process may have it
      await say({ type: 'failed', reason: errorLine(error) })
      process.kill(process.pid, 'SIGKILL')
    }
    return endBy(error)
  }
}
