/**
 * What the virtio-fs driver of Linux sends to its device, as recorded on the virtqueues of a guest
 * with Linux 6.12.107 (and 6.1.192, with the same sequences) that was served by virtiofsd 1.13.2:
 * ring size 128, cache=auto, one request queue. Scenario names are those of the recordings.
 *
 * A sequence is what came on the request queue in one step, in order: the opcode, with `:name` where
 * one name says more, and `!ERRNO`. Left out, on both sides, is what depends on how fast somebody is
 * and on the server: GETATTR and STATX; a LOOKUP that gives a node which is known already; of READ, WRITE and
 * READDIRPLUS (or READDIR, with which a list may go on) of one step all but the first. Consecutive UNLINKs stand in alphabetical order.
 * `(…)*` is repeated for each of the many files, of which the recording has 2000. FORGETs are counted
 * apart, one per node, since there is no order between queues.
 */

/** Why ours differs; native-notes/linux-traces.md says more about each. */
export const REASONS = {
  'sync': 'type fuse has no SYNCFS: the kernel sends it for virtiofs only',
  'release': 'RELEASE is asynchronous for type fuse: one that the kernel still has when the file system goes is lost, and DESTROY closes the file',
  'forget': 'FORGETs that the kernel still has when the file system goes are lost on both sides, in other numbers; DESTROY releases the lookups',
  'pages': 'payload is described by one descriptor, not one per page, so the ring does not limit max_pages to its size less 4',
  'interrupt': 'the virtio driver leaves INTERRUPT out; /dev/fuse gives it, and the emulated device hears of it',
  'lazy': 'a session without a mount point has no superblock in reach that could be mounted again',
} as const

export interface TraceStep {
  /** What is done, as a line of a shell; see the actions of the test. */
  does: string
  /** What Linux sends. */
  linux?: string
  /** What we send, where that differs; `RELEASE?` may be there or not. */
  ours?: string
  because?: keyof typeof REASONS
  /** Nodes forgotten; `many` is the number of files. */
  forgets?: number | 'many' | 'many+1' | 'up to many'
  /** Of all requests, how many with this opcode: of Linux and ours. */
  count?: { op: string, linux: number, ours: number, because: keyof typeof REASONS }
  /** The errno that the caller gets. */
  fails?: string
}

export interface TraceScenario {
  name: string
  title: string
  steps: readonly TraceStep[]
}

const CAT = 'LOOKUP:hello.txt OPEN READ FLUSH RELEASE'

export const SCENARIOS: readonly TraceScenario[] = [
  {
    name: 's1', title: 'mount, ls, umount', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'ls .', linux: 'OPENDIR READDIRPLUS RELEASEDIR' },
      { does: 'umount', linux: 'DESTROY' },
    ],
  },
  {
    name: 's1b', title: 'ordinary operations', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'cat hello.txt', linux: CAT },
      { does: 'echo new.txt', linux: 'LOOKUP:new.txt!ENOENT CREATE:new.txt FLUSH GETXATTR!ENOSYS WRITE FLUSH RELEASE' },
      { does: 'cat new.txt', linux: 'OPEN READ FLUSH RELEASE' },
      { does: 'mkdir nd', linux: 'LOOKUP:nd!ENOENT MKDIR:nd' },
      { does: 'mv new.txt nd/moved.txt', linux: 'LOOKUP:moved.txt!ENOENT LOOKUP:moved.txt!ENOENT RENAME:new.txt' },
      { does: 'ln-s hello.txt sl', linux: 'LOOKUP:sl!ENOENT LOOKUP:sl!ENOENT SYMLINK:sl' },
      { does: 'cat sl', linux: 'READLINK OPEN READ FLUSH RELEASE' },
      { does: 'ln hello.txt hl', linux: 'LOOKUP:hl!ENOENT LOOKUP:hl!ENOENT LINK:hl' },
      { does: 'chmod nd/moved.txt', linux: 'SETATTR' },
      { does: 'truncate nd/moved.txt', linux: 'OPEN SETATTR FLUSH RELEASE' },
      { does: 'ls-l .', linux: 'OPENDIR READDIRPLUS RELEASEDIR READLINK READLINK' },
      { does: 'df .', linux: 'STATFS' },
      { does: 'dd-from big.bin', linux: 'OPEN FLUSH READ FLUSH RELEASE' },
      {
        does: 'dd-to nd/w.bin', linux: 'LOOKUP:w.bin!ENOENT CREATE:w.bin FLUSH WRITE FLUSH RELEASE',
        count: { op: 'WRITE', linux: 6, ours: 2, because: 'pages' },
      },
      { does: 'sync', linux: 'SYNCFS', ours: '', because: 'sync' },
      { does: 'rm-r nd', linux: 'OPENDIR READDIRPLUS UNLINK:moved.txt UNLINK:w.bin RELEASEDIR RMDIR:nd', forgets: 3 },
      { does: 'rm sl hl', linux: 'READLINK UNLINK:hl UNLINK:sl', forgets: 1 },
      { does: 'stat NOSUCH', linux: 'LOOKUP:NOSUCH!ENOENT', fails: 'ENOENT' },
      { does: 'umount', linux: 'DESTROY' },
    ],
  },
  {
    name: 's2', title: 'many inodes, caches dropped, umount with the inodes cached', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'mkdir many', linux: 'LOOKUP:many!ENOENT MKDIR:many' },
      { does: 'create-many many', linux: '(LOOKUP!ENOENT CREATE FLUSH RELEASE)*' },
      { does: 'drop-caches 3', forgets: 'many+1' },
      { does: 'stat-many many', linux: 'LOOKUP (LOOKUP)*' },
      { does: 'drop-caches 2', forgets: 'many+1' },
      { does: 'ls many', linux: 'LOOKUP:many OPENDIR READDIRPLUS RELEASEDIR' },
      { does: 'stat-many many', linux: '' },
      { does: 'umount', linux: 'DESTROY' },
      { does: 'mount', linux: 'INIT' },
      { does: 'stat many/f7', linux: 'LOOKUP:many LOOKUP:f7' },
      { does: 'rm-r many', linux: 'OPENDIR READDIRPLUS (UNLINK)* RELEASEDIR RMDIR', forgets: 'many+1' },
      { does: 'umount', linux: 'DESTROY' },
    ],
  },
  {
    name: 's3', title: 'the same tag mounted at two places', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'mount-second' },
      { does: 'cat hello.txt', linux: CAT },
      { does: 'cat second/hello.txt', linux: 'OPEN READ FLUSH RELEASE' },
      { does: 'umount-first' },
      { does: 'cat second/hello.txt', linux: 'OPEN READ FLUSH RELEASE' },
      { does: 'umount-second', linux: 'DESTROY' },
      { does: 'mount', linux: 'INIT' },
      { does: 'mount-second ro' },
      { does: 'touch second/x', linux: 'LOOKUP:x!ENOENT LOOKUP:x!ENOENT', fails: 'EROFS' },
      { does: 'umount-second' },
      { does: 'umount', linux: 'DESTROY' },
    ],
  },
  {
    name: 's5', title: 'mount, read, umount, three times', steps: [1, 2, 3].flatMap(() => [
      { does: 'mount', linux: 'INIT' },
      { does: 'cat hello.txt', linux: CAT },
      { does: 'umount', linux: 'DESTROY' },
    ]),
  },
  {
    name: 's6', title: 'umount while a file is open, umount -l, close', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'hold hello.txt', linux: 'LOOKUP:hello.txt OPEN' },
      { does: 'umount-busy', linux: '', fails: 'EBUSY' },
      { does: 'umount-lazily', linux: '' },
      { does: 'holder-reads', linux: 'READ' },
      { does: 'mount-meanwhile', linux: '', ours: '', because: 'lazy', fails: 'EEXIST' },
      { does: 'holder-closes', linux: 'FLUSH RELEASE DESTROY', ours: 'FLUSH RELEASE? DESTROY', because: 'release' },
      { does: 'mount', linux: 'INIT' },
      { does: 'hold-new w.txt', linux: 'LOOKUP:w.txt!ENOENT CREATE:w.txt' },
      { does: 'umount-lazily', linux: '' },
      { does: 'holder-writes', linux: 'GETXATTR!ENOSYS WRITE' },
      { does: 'holder-is-killed', linux: 'FLUSH RELEASE DESTROY', ours: 'FLUSH RELEASE? DESTROY', because: 'release' },
      { does: 'mount', linux: 'INIT' },
      { does: 'umount', linux: 'DESTROY' },
    ],
  },
  {
    name: 's10', title: 'umount with no pause after close, drop_caches and rm', steps: [
      { does: 'mount', linux: 'INIT' },
      { does: 'cat-umount hello.txt', linux: `${CAT} DESTROY`, ours: 'LOOKUP:hello.txt OPEN READ FLUSH RELEASE? DESTROY', because: 'release' },
      { does: 'mount', linux: 'INIT' },
      { does: 'mkdir many', linux: 'LOOKUP:many!ENOENT MKDIR:many' },
      { does: 'create-many many', linux: '(LOOKUP!ENOENT CREATE FLUSH RELEASE)*' },
      { does: 'drop-umount', linux: 'DESTROY', forgets: 'up to many', because: 'forget' },
      { does: 'mount', linux: 'INIT' },
      { does: 'rm-umount many/f7', linux: 'LOOKUP:many LOOKUP:f7 UNLINK:f7 DESTROY', forgets: 'up to many', because: 'forget' },
    ],
  },
]

/** What virtiofsd 1.13.2 answered to INIT. */
export const VIRTIOFSD_FLAGS: readonly [low: number, high: number] = [0x4844_f829, 0x104]

/** Flags of the INIT of Linux 6.12 (flags 0x7bfffffb, flags2 0x1ff) that ours does not offer, and why. */
export const INIT_6_12: readonly [low: number, high: number] = [0x7bff_fffb, 0x1ff]
export const NOT_OFFERED: Record<string, string> = {
  SPLICE_WRITE: 'a way to talk to /dev/fuse', SPLICE_MOVE: 'a way to talk to /dev/fuse', SPLICE_READ: 'a way to talk to /dev/fuse',
  SUBMOUNTS: 'type fuse has no automatic submounts', HAS_INODE_DAX: 'type fuse has no DAX',
  PASSTHROUGH: 'backing files are registered with /dev/fuse, which the bridge has', HAS_RESEND: 'the kernel would repeat requests over the head of the driver',
}
