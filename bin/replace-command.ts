/** `virtiofs-bridge replace`. */
import { resolve } from 'node:path'
import { ExitCode } from './exit-codes.js'
import { connectToMount } from './find-control.js'

/** Requests in flight may take as long as an unmount gives them, and a state of very many inodes as long again. */
const REPLACE_TIMEOUT_MS = 120_000

/**
 * @param target a mount point or a tag
 * @param paths of the new backend's socket, or of its binary
 * @returns the exit code
 */
export async function replaceCommand(target: string, { socket, virtiofsd }: { socket: string | undefined, virtiofsd: string | undefined }): Promise<number> {
  const { client } = await connectToMount(target)
  try {
    const { pausedMs } = await client.ask({
      command: 'replace', ...socket !== undefined && { socket: resolve(socket) }, ...virtiofsd !== undefined && { virtiofsd: resolve(virtiofsd) },
    }, REPLACE_TIMEOUT_MS)
    console.log(`replaced: requests waited ${pausedMs} ms`)
    return ExitCode.OK
  } finally {
    client.close()
  }
}
