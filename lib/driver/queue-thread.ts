/**
 * Starting the thread of a queue. That takes longer than anything else in a mount, so that a program
 * which is about to mount something can start the first one while it loads all the rest.
 */
import type { EventEmitter } from 'node:events'
import { Worker } from 'node:worker_threads'
import { threadArguments } from '../sys/thread-options.js'

/** What a handle needs of its thread; a test has one that it steps itself. */
export type QueueThread = Pick<Worker, 'postMessage' | 'unref'> & EventEmitter

/** Waits for whoever asks for a thread first; it does not keep the process alive. */
let early: Worker | undefined

function start(index: number): Worker {
  return new Worker(new URL('./worker-main.js', import.meta.url), { execArgv: threadArguments(), name: `virtiofs-queue${index}` })
}

/** Starts the thread of the first queue before it is known what it is to serve. */
export function startQueueThreadEarly(): void {
  early = start(0)
  early.unref()
}

/** The thread of a queue, which is the caller's. */
export function startQueueThread(index: number): QueueThread {
  if (index > 0 || !early) return start(index)
  const thread = early
  early = undefined
  thread.ref()
  return thread
}
