/** What the owner of a shared directory can choose; names and meaning are virtiofsd's. */
import { UsageError } from '../../errors.js'
import * as abi from '../../fuse/abi.js'
import { Ids, TranslatedIds } from './id-map.js'
import { checkPatterns } from './name-filter.js'
import { XattrMap } from './xattr-map.js'

/** virtiofsd's, and `coherent`: for ever, but the kernel is told of what changes. */
export type CachePolicy = 'auto' | 'always' | 'metadata' | 'never' | 'coherent'

export interface PassthroughOptions {
  /** The directory to serve. */
  root: string
  /** How long the kernel may believe what it knows, and whether it keeps file data. */
  cache: CachePolicy
  /** The kernel may collect writes; only for a tree that nobody else writes. */
  writeback: boolean
  /** Extended attributes. */
  xattr: boolean
  /** POSIX ACLs, enforced by the kernel; needs `xattr`. */
  posixAcl: boolean
  readonly: boolean
  /** Pass O_DIRECT on to the file system below. */
  allowDirectIo: boolean
  /** Reading marks no access time, of anything or of directories: what the mount is told by `noatime` and `nodiratime`. */
  noatime: boolean
  nodiratime: boolean
  /** The kernel reads and writes the files itself, where it can. */
  direct: boolean
  readdirplus: boolean
  /** Rules that translate names of attributes, see XattrMap; empty for none. Needs `xattr`. */
  xattrMap: string
  /** Rules that translate user ids and group ids, see IdMap. */
  translateUid: readonly string[]
  translateGid: readonly string[]
  /** Patterns of names that do not exist and cannot be made, see NameFilter. */
  hide: readonly string[]
  /** Unless it is empty: what is no directory only exists if its name matches one. */
  only: readonly string[]
  /** Bytes that the tree may take; Infinity for no limit. */
  maxSize: number
}

export const defaultOptions: Omit<PassthroughOptions, 'root'> = {
  cache: 'auto', writeback: false, xattr: true, posixAcl: false, readonly: false, allowDirectIo: false, noatime: false, nodiratime: false, direct: false,
  readdirplus: true,
  xattrMap: '', translateUid: [], translateGid: [], hide: [], only: [], maxSize: Infinity,
}

/** A cache policy as the numbers that replies carry. */
export interface CacheRules {
  /** entry_valid and attr_valid, seconds. */
  timeoutSeconds: number
  fileOpenFlags: number
  dirOpenFlags: number
}

/** Seconds. The kernel cuts it to what its clock can hold. */
const FOR_EVER = 0xffff_ffff

/**
 * The rules of a policy. Source: virtiofsd 1.13 `main.rs` (time-outs), `passthrough/mod.rs`
 * `do_open` and `create` (open flags). `coherent` is for what is watched; see Volume.
 */
export function cacheRules(policy: CachePolicy): CacheRules {
  const direct = abi.FOPEN_DIRECT_IO | abi.FOPEN_PARALLEL_DIRECT_WRITES
  switch (policy) {
    case 'auto': return { timeoutSeconds: 1, fileOpenFlags: 0, dirOpenFlags: 0 }
    case 'always': return { timeoutSeconds: 86400, fileOpenFlags: abi.FOPEN_KEEP_CACHE, dirOpenFlags: abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR }
    case 'metadata': return { timeoutSeconds: 86400, fileOpenFlags: direct, dirOpenFlags: abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR }
    case 'never': return { timeoutSeconds: 0, fileOpenFlags: direct, dirOpenFlags: 0 }
    case 'coherent': return { timeoutSeconds: FOR_EVER, fileOpenFlags: abi.FOPEN_KEEP_CACHE, dirOpenFlags: abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR }
  }
}

/**
 * How a mount translates ids, if it does.
 * @throws UsageError
 */
export function idsOf(options: PassthroughOptions): Ids | undefined {
  if (options.translateUid.length === 0 && options.translateGid.length === 0) return undefined
  return new Ids(new TranslatedIds('translate_uid', options.translateUid), new TranslatedIds('translate_gid', options.translateGid))
}

/** @throws UsageError for combinations that cannot be served */
export function checkOptions(options: PassthroughOptions): void {
  if (!['auto', 'always', 'metadata', 'never', 'coherent'].includes(options.cache)) throw new UsageError(`cache=${options.cache}: not one of auto, always, metadata, never, coherent`)
  if (options.posixAcl && !options.xattr) throw new UsageError('posix_acl needs xattr')
  if (options.xattrMap !== '') {
    if (!options.xattr) throw new UsageError('xattrmap needs xattr')
    new XattrMap(options.xattrMap)
  }
  checkPatterns(options.hide, 'hide')
  checkPatterns(options.only, 'only')
  if (options.maxSize !== Infinity) {
    if (!Number.isSafeInteger(options.maxSize) || options.maxSize < 1) throw new UsageError(`max_size=${options.maxSize}: expected a whole number of bytes`)
    if (options.direct) throw new UsageError('max_size does not go with direct: the kernel would write without asking')
  }
  if (idsOf(options) !== undefined && options.posixAcl) throw new UsageError('posix_acl does not go with translated ids: those in an ACL would stay as they are')
  if (options.writeback && options.cache === 'never') throw new UsageError('writeback does not go with cache=never')
  if (options.writeback && options.cache === 'coherent') throw new UsageError('writeback does not go with cache=coherent: what the kernel has not written yet would hide changes')
}
