/** The mount of a process in the background: says so when it is usable, and lets go of terminal, directory and parent. */
import type { Worker } from 'node:worker_threads'
import { offerQueueThread, withdrawQueueThread } from '../lib/driver/queue-thread.js'
import { parseMountOptions } from '../lib/mount/options.js'
import { detach } from './detach.js'
import { endBy } from './exit-codes.js'
import type { MountArguments } from './plain-mount.js'
import { serveMount } from './run-mount.js'

function usable(): void {
  detach()
  process.send!('usable', () => process.disconnect())
}

/** @param thread for the first queue, if this process serves it @returns the exit code */
export async function serveInBackground({ source, mountpoint, options: lists, sloppy = false }: MountArguments, thread: Worker): Promise<number> {
  offerQueueThread(thread)
  try {
    const options = parseMountOptions(lists, { sloppy })
    if (options.supervise || options.via === 'fuse-native') withdrawQueueThread()
    return await serveMount({ source, mountpoint, options }, usable, true)
  } catch (error) {
    return endBy(error)
  }
}
