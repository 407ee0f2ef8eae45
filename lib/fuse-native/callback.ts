/** What a callback of libfuse is here, and what all of them work on. */
import type { Tree } from '../client/tree.js'
import type { Node } from '../client/node.js'
import type { HiddenFiles } from './hidden-files.js'
import type { LibfuseThread } from './libfuse-thread.js'
import type { OpenFiles } from './open-files.js'

const HIGH = 0x1_0000_0000

/**
 * @param thread the caller
 * @param args what the addon passes: paths as strings, numbers of 64 bits as two halves
 * @returns 0, a count of bytes, or −errno
 */
export type Callback = (thread: LibfuseThread, ...args: never[]) => number | Promise<number>

/** A mount as its callbacks see it. */
export interface Served {
  readonly tree: Tree
  readonly files: OpenFiles
  readonly hidden: HiddenFiles
}

/** A number of 64 bits from its halves, as the addon passes them. */
export function number64(low: number, high: number): number {
  return high * HIGH + low
}

/** Calls with the node of a path, which may be a file that was removed. Links at the end are not followed: the kernel has done that. */
export function onNode({ tree, hidden }: Served, path: string, use: (node: Node) => Promise<number>): Promise<number> {
  const removed = hidden.find(path)
  return removed ? use(removed) : tree.withNode<number>(path, false, use)
}
