/**
 * The threads of the queues. Starting one takes longer than anything else in a mount, so a program
 * that is about to mount something starts the first one before it loads all the rest, and offers it.
 */
import type { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { threadArguments } from '../sys/thread-options.js'

/** What a handle needs of its thread; a test has one that it steps itself. */
export type QueueThread = Pick<Worker, 'postMessage' | 'unref'> & EventEmitter

let offered: Worker | undefined

/** Starts a thread, which loads its modules and waits for what it is to serve. It is the caller's. */
export function startQueueThread(index: number): Worker {
  return new Worker(new URL('./worker-main.js', import.meta.url), { execArgv: threadArguments(), name: `virtiofs-queue${index}` })
}

/** The next first queue takes this thread. Until then it does not keep the process alive. */
export function offerQueueThread(thread: Worker): void {
  thread.unref()
  offered = thread
}

/** Nobody will take it: it ends. */
export function withdrawQueueThread(): void {
  offered?.postMessage({ type: 'exit' })
  offered = undefined
}

/** The thread of a queue, which is the caller's. */
export function takeQueueThread(index: number): QueueThread {
  if (index > 0 || !offered) return startQueueThread(index)
  const thread = offered
  offered = undefined
  thread.ref()
  return thread
}
