/**
 * Makes the kernel one before 6.9, which knows no FUSE_NOTIFY_RESEND: it says EINVAL to it. Loaded by
 * `node --import` before anything else, in every process and thread of the bridge.
 */
import koffi from 'koffi'
import { errno } from '../../lib/errors.js'
import { FUSE_NOTIFY_RESEND, FuseOutHeader } from '../../lib/fuse/abi.js'
import type { Intermediary } from '../../lib/sys/libc.js'

const intermediary: Intermediary = {
  bind(prototype, call, setErrno) {
    if (!/\bwrite\(/.test(prototype)) return call
    return (...args) => {
      if (args[2] === FuseOutHeader.SIZE) {
        const message = new DataView(koffi.view(args[1] as number, FuseOutHeader.SIZE) as ArrayBuffer)
        if (message.getInt32(FuseOutHeader.error, true) === FUSE_NOTIFY_RESEND && message.getUint32(FuseOutHeader.unique, true) === 0) {
          setErrno(errno.EINVAL)
          return -1
        }
      }
      return call(...args)
    }
  },
  beforeAsync: () => 0,
}
Object.defineProperty(globalThis, Symbol.for('virtiofs-bridge.intermediary'), { value: intermediary })
