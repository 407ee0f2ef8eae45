/**
 * Options of -o that people know from other FUSE file systems. Those that ask for what is always so
 * are taken; those that would change something are refused, with what does the same here. Sources:
 * libfuse 3.18 lib/mount.c, lib/fuse.c, util/fusermount.c and ChangeLog.rst, libfuse 2.9 lib/fuse.c,
 * mount.fuse3(8), sshfs(1), bindfs(1), Linux Documentation/filesystems/virtiofs.rst.
 */

/** Exactly these, value and all. */
const ALWAYS_SO = new Set([
  // libfuse 3 and fusermount3 have them without being asked
  'nonempty', 'big_writes', 'large_read', 'noauto_cache', 'max_read=0',
  // inode numbers are the device's, what is removed while it is open is removed, requests are interrupted, each queue has its descriptor
  'use_ino', 'readdir_ino', 'hard_remove', 'intr', 'clone_fd',
  'idmap=none', 'dax=never',
])

/** Whether an option is taken and changes nothing. */
export function isAlwaysSo(option: string): boolean {
  return ALWAYS_SO.has(option)
}

/** Their names, for those who look for one like it. */
export function namesAlwaysSo(): string[] {
  return [...ALWAYS_SO].filter(option => !option.includes('='))
}

type Advice = string | ((option: string, value: string) => string)

const TIMES = 'the times come with the policy: cache=never, cache=auto (1 second), cache=metadata or cache=always (a day), cache=coherent (until something changes)'
const SIZES = 'leave it out: the device and the kernel agree on it'
const MODES = 'modes are the device\'s own: change them there, or mount with bindfs --perms on top'
const LINKS = 'links are shown as they are, and followed by who uses them'
const THREADS = 'queues=N says how many threads take requests'
const SSH: Advice = option => `rsh='ssh -o ${option}' gives it to ssh`
const DEBUGGING = 'DEBUG=\'virtiofs:*\' in the environment, with -f, prints what happens; virtiofs-bridge trace shows the requests of a mount'
const OF_MOUNT_FUSE = 'mount.fuse3 does that before the file system is started: without our helpers of mount(8), see virtiofs-bridge uninstall'

const shownAs = (rule: string, who: string): Advice => (_, value) => `${rule}=squash-host:0:${/^\d+$/.test(value) ? value : 'ID'}:4294967295 shows every file as of this ${who}`

/** What to use instead, by the name of the option. */
export const foreignOptions: Readonly<Record<string, Advice>> = {
  kernel_cache: 'use cache=always', auto_cache: 'use cache=coherent, which keeps data and sees changes; by default a file is read anew each time it is opened', direct_io: 'use cache=never',
  attr_timeout: TIMES, entry_timeout: TIMES, negative_timeout: TIMES, ac_attr_timeout: TIMES, cache_timeout: TIMES, dcache_timeout: TIMES, dir_cache: TIMES,
  max_read: SIZES, max_write: SIZES, max_background: SIZES, congestion_threshold: SIZES, max_readahead: 'use readahead=SIZE', no_readahead: 'use readahead=4K', writeback_cache: 'use writeback',
  noforget: 'leave it out: inode numbers are the device\'s own', remember: 'leave it out: inode numbers are the device\'s own',
  uid: shownAs('translate_uid', 'user'), gid: shownAs('translate_gid', 'group'), 'force-user': shownAs('translate_uid', 'user'), 'force-group': shownAs('translate_gid', 'group'),
  idmap: 'use translate_uid=map:HERE:THERE:1 and translate_gid=map:HERE:THERE:1', map: 'use translate_uid=map:HERE:THERE:1 and translate_gid=map:HERE:THERE:1',
  umask: MODES, fmask: MODES, dmask: MODES, perms: MODES,
  allow_root: 'use allow_other: root is let in with the others',
  debug: DEBUGGING, sshfs_debug: DEBUGGING,
  reconnect: 'use on_disconnect=wait', delay_connect: 'x-systemd.automount in /etc/fstab mounts at the first use',
  follow_symlinks: LINKS, transform_symlinks: LINKS, contain_symlinks: LINKS, no_contain_symlinks: LINKS,
  ssh_command: 'use rsh=COMMAND', port: (_, value) => `use ssh://HOST:${/^\d+$/.test(value) ? value : 'PORT'}/PATH`, compression: SSH,
  max_threads: THREADS, max_idle_threads: THREADS, multithreaded: THREADS,
  dax: 'there is no DAX window; direct, of the emulated device, reads and writes without copies',
  setuid: OF_MOUNT_FUSE, drop_privileges: OF_MOUNT_FUSE,
}

/** What is said of an option that is not ours, or undefined for one that nobody knows. */
export function foreignAdvice(option: string, name: string, value = ''): string | undefined {
  const advice = Object.hasOwn(foreignOptions, name) ? foreignOptions[name]! : /^[A-Z][A-Za-z]+$/.test(name) && value !== '' ? SSH : undefined
  return typeof advice === 'function' ? advice(option, value) : advice
}
