/** The kinds of directory that the checks run on, and what each of them cannot do. */
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { fuseNativeExceptions, fuseNativeRaces } from './fuse-native-exceptions.js'

export interface Kind {
  name: string
  /** Where the files are: tmpfs, or the disk's file system. */
  parent: string
  /** For `-o`; none for the directory itself. */
  options?: string
  /** The directory is served by a relay over pipes. */
  relay?: boolean
  /** Checks, by the beginning of their name, that this kind of mount is known to fail, and why. */
  exceptions: Readonly<Record<string, string>>
  /** The same for checks that fail now and then. */
  races?: Readonly<Record<string, string>>
  /** Only test/posix/all-kinds.sh runs it. */
  further?: boolean
}

const MEMORY = '/dev/shm'
const DISK = tmpdir()
const ALL = 'xattr,posix_acl'

const KILLPRIV = 'it leaves suid and sgid to the kernel unless started with --killpriv-v2, and the kernel then only looks at writes that it caches'
const SYS_ADMIN = 'it gives up CAP_SYS_ADMIN unless started with --modcaps=+sys_admin'
const UNCACHED = 'without a cache it opens for direct I/O alone: ENODEV'

/** What neither virtiofsd can do, as it is started. */
const virtiofsdExceptions: Kind['exceptions'] = {
  'suid-clearing: O_TRUNC': KILLPRIV,
  'suid-clearing: a look at the mode alone': KILLPRIV,
  'suid-clearing: sgid without group x goes': KILLPRIV,
  'xattrs: trusted attributes': SYS_ADMIN,
  'xattrs: a security attribute': SYS_ADMIN,
  'o_tmpfile: ': 'it does not answer TMPFILE',
  'statx: a time of birth': 'it does not answer STATX',
  'rename2: a whiteout belongs': 'it renames as root',
}

const rustExceptions: Kind['exceptions'] = {
  ...virtiofsdExceptions,
  'open-flags: what is read through O_NOATIME': 'it does not pass O_NOATIME on',
  'directories: the working directory can be removed': 'it opens by file handle, and that of a removed directory is stale: ESTALE',
}

const rustUncachedExceptions: Kind['exceptions'] = {
  ...rustExceptions,
  'suid-clearing: a write by another user': KILLPRIV,
  'suid-clearing: also one by its owner': KILLPRIV,
  'suid-clearing: fstat sees it': KILLPRIV,
  'suid-clearing: a write after one through a shared mapping': UNCACHED,
  'shared-mappings: ': UNCACHED,
}

const cExceptions: Kind['exceptions'] = {
  ...virtiofsdExceptions,
  'setgid-directories: who is not in the group cannot': 'it does not know supplementary groups of the caller',
}

/** What FUSE itself cannot do with cache=always and writeback, whoever serves. */
const cachedWriteExceptions: Kind['exceptions'] = {
  'times: reading an old file marks atime': 'pages kept since they were written are read without asking the server, and FUSE keeps no atime of its own',
}

/** What FUSE cannot do when the kernel accesses the files itself. */
const directExceptions: Kind['exceptions'] = {
  'suid-clearing: sgid without group x goes': 'fuse_setattr in fs/fuse/dir.c clears sgid only together with group x',
  'shared-mappings: storing marks mtime and ctime': 'FUSE hears nothing of stores to a mapping of a backing file, and shows the times that it knew',
}

/** Where the kernel has the bridge's own numbers of nodes. */
const superviseExceptions: Kind['exceptions'] = {
  'suid-clearing: a look at the mode alone': 'the device does not know the number that the kernel has for the file',
}

/** What the far end of a relay cannot do: it does not know the callers' groups, and FUSE 7.40 does not say their ids (ALLOW_IDMAP). */
export const relayExceptions: Kind['exceptions'] = {
  'suid-clearing: a look at the mode alone': 'the far end cannot tell the kernel that more has changed than it thinks',
  'suid-clearing: sgid without group x ': 'who is in a group is known where the callers are',
}

function emulated(options: string, { parent = MEMORY, exceptions = {} }: Partial<Kind> = {}): Kind {
  return { name: `emulated device, ${options}${parent === DISK ? ', on disk' : ''}`, parent, options: `${ALL},${options}`, exceptions }
}

function peer(build: string): string {
  return fileURLToPath(new URL(`../../../.peers/${build}`, import.meta.url))
}

/** Virtiofsd builds are optional: test/support/peers.sh fetches them. */
function virtiofsd(build: string, options: string, exceptions: Kind['exceptions']): Kind[] {
  const path = peer(build)
  return existsSync(path) ? [{ name: `${build}, ${options}`, parent: MEMORY, options: `${ALL},${options},backend=virtiofsd,virtiofsd=${path}`, exceptions }] : []
}

/** Through libfuse 2, which fuse-native has for x64 only. */
function fuseNative(options: string, more: Partial<Kind> = {}): Kind[] {
  if (process.arch !== 'x64') return []
  return [{ name: `fuse-native, ${options}`, parent: MEMORY, options: `xattr,via=fuse-native,${options}`, exceptions: fuseNativeExceptions, races: fuseNativeRaces, ...more }]
}

const noCapability = { 'xattrs: trusted attributes': SYS_ADMIN, 'xattrs: a security attribute': SYS_ADMIN }

/** The same over a virtiofsd. */
function fuseNativeOver(build: string, { exceptions, races = fuseNativeRaces }: Partial<Kind>): Kind[] {
  const path = peer(build)
  return existsSync(path) ? fuseNative(`backend=virtiofsd,virtiofsd=${path}`, { name: `fuse-native, ${build}`, exceptions: { ...exceptions, ...noCapability }, races, further: true }) : []
}

const withoutAcls = Object.fromEntries(Object.entries(fuseNativeExceptions).filter(([name]) => !name.startsWith('acls: ')))

export const kinds: readonly Kind[] = [
  { name: 'plain directory in memory', parent: MEMORY, exceptions: {} },
  { name: 'plain directory on disk', parent: DISK, exceptions: {} },
  emulated('cache=auto'),
  emulated('cache=always'),
  emulated('cache=metadata'),
  emulated('cache=never'),
  emulated('cache=coherent'),
  emulated('cache=auto,queues=4'),
  emulated('cache=never,queues=4'),
  emulated('cache=auto,writeback'),
  emulated('cache=always,writeback,queues=4', { exceptions: cachedWriteExceptions }),
  emulated('cache=auto,allow_direct_io'),
  emulated('cache=auto,no_readdirplus'),
  emulated('cache=auto,supervise', { exceptions: superviseExceptions }),
  emulated('direct', { exceptions: directExceptions }),
  emulated('direct,cache=always,queues=4', { exceptions: directExceptions }),
  emulated('cache=auto', { parent: DISK }),
  { ...emulated('cache=auto', { exceptions: relayExceptions }), name: 'emulated device behind a relay', relay: true },
  ...virtiofsd('virtiofsd-rust', 'cache=auto', rustExceptions),
  ...virtiofsd('virtiofsd-rust', 'cache=never', rustUncachedExceptions),
  ...virtiofsd('virtiofsd-c', 'cache=auto', cExceptions),
  ...fuseNative('cache=auto'),
  ...fuseNative('cache=always', { further: true }),
  ...fuseNativeOver('virtiofsd-rust', { exceptions: fuseNativeExceptions }),
  // it stores ACLs as any other attribute
  ...fuseNativeOver('virtiofsd-c', { exceptions: withoutAcls, races: { ...fuseNativeRaces, 'acls: ': 'stored, and not looked at' } }),
]
