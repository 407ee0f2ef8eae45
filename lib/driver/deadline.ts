/** Waiting for a device, but not for ever, and not for one that is gone. */
import { PeerGoneError } from '../errors.js'

/** Where somebody hears that the device is gone. */
export interface GoneSource {
  once(event: 'gone', listener: (reason: string) => void): unknown
  off(event: 'gone', listener: (reason: string) => void): unknown
}

/**
 * @param what is waited for, for the message
 * @param timeoutMs milliseconds
 * @throws PeerGoneError when it takes longer or the device goes meanwhile; what `promise` throws
 */
export async function within<T>(source: GoneSource, timeoutMs: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new PeerGoneError(`the device did not answer ${what} within ${timeoutMs / 1000} s`, 'ETIMEDOUT')), timeoutMs)
  })
  let goneListener: (reason: string) => void = () => {}
  const gone = new Promise<never>((_, reject) => {
    goneListener = reason => reject(new PeerGoneError(`${reason} before it answered ${what}`))
    source.once('gone', goneListener)
  })
  try {
    return await Promise.race([promise, late, gone])
  } finally {
    clearTimeout(timer)
    source.off('gone', goneListener)
  }
}
