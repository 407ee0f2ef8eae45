/** Tells the kernel of the mount, past the rings, to ask for the attributes of an inode again. One thread's. */
import { FUSE_NOTIFY_INVAL_INODE, FuseNotifyInvalInodeOut, FuseOutHeader } from '../../fuse/abi.js'
import { write } from '../../sys/io.js'
import { scratch, type Region } from '../../sys/memory.js'
import { setU64 } from '../../wire/u64.js'

const BYTES = FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.SIZE

export class AttributeNotice {
  readonly #fuseFd: number
  readonly #message: Region = scratch(BYTES)

  /** @param fuseFd /dev/fuse of the mount */
  constructor(fuseFd: number) {
    this.#fuseFd = fuseFd
    const { view } = this.#message
    view.setUint32(FuseOutHeader.len, BYTES, true)
    view.setInt32(FuseOutHeader.error, FUSE_NOTIFY_INVAL_INODE, true)
    setU64(view, FuseOutHeader.unique, 0)
    // a negative offset leaves the data alone
    view.setBigInt64(FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.off, -1n, true)
    setU64(view, FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.len, 0)
  }

  /**
   * While a request on the inode is at work, so that the kernel has it: it takes no lock then, and the
   * caller sees the new attributes. What it does not know is as well.
   */
  send(nodeid: number): void {
    setU64(this.#message.view, FuseOutHeader.SIZE + FuseNotifyInvalInodeOut.ino, nodeid)
    write(this.#fuseFd, this.#message.address, BYTES)
  }
}
