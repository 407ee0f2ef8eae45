/** Mount options: `-o` lists as people and mount(8) give them. */
import t from 'tap'
import { UsageError } from '../../lib/errors.js'
import { foreignOptions } from '../../lib/mount/foreign-options.js'
import { MS_DIRSYNC, MS_LAZYTIME, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_RDONLY, MS_RELATIME, MS_STRICTATIME, MS_SYNCHRONOUS } from '../../lib/mount/flags.js'
import { mountFlagNames, optionTable, parseMountOptions, pollMicroseconds } from '../../lib/mount/options.js'

function refused(text: string): string {
  try {
    parseMountOptions([text])
  } catch (error) {
    return error instanceof UsageError ? error.message : `not a UsageError: ${String(error)}`
  }
  return 'accepted'
}

t.test('nothing given: nothing set', async t => {
  t.strictSame(parseMountOptions([]), { mountFlags: 0 })
  t.strictSame(parseMountOptions(['']), { mountFlags: 0 })
  t.strictSame(parseMountOptions([',,', 'defaults,']), { mountFlags: 0 })
})

t.test('every option of the table, by an example of it', async t => {
  const examples: Record<string, [text: string, key: string, value: unknown]> = {
    tag: ['tag=myfs', 'tag', 'myfs'], socket: ['socket=/run/a b.sock', 'socket', '/run/a b.sock'], backend: ['backend=virtiofsd', 'backend', 'virtiofsd'], via: ['via=fuse-native', 'via', 'fuse-native'],
    virtiofsd: ['virtiofsd=/opt/v', 'virtiofsd', '/opt/v'], sandbox: ['sandbox=chroot', 'sandbox', 'chroot'], rsh: ['rsh=ssh -i key', 'rsh', 'ssh -i key'],
    relay_command: ['relay_command=sudo vb', 'relayCommand', 'sudo vb'], queues: ['queues=4', 'queues', 4],
    queue_size: ['queue_size=1024', 'queueSize', 1024], poll: ['poll=50', 'poll', 50], cache: ['cache=never', 'cache', 'never'],
    readahead: ['readahead=64K', 'readahead', 65536],
    low_latency: ['low_latency', 'lowLatency', true], no_low_latency: ['no_low_latency', 'lowLatency', false],
    writeback: ['writeback', 'writeback', true], xattr: ['xattr', 'xattr', true], posix_acl: ['posix_acl', 'posixAcl', true],
    xattrmap: ['xattrmap=:map::user.virtiofs.:', 'xattrmap', ':map::user.virtiofs.:'],
    translate_uid: ['translate_uid=map:0:100000:65536', 'translateUid', ['map:0:100000:65536']], translate_gid: ['translate_gid=forbid-guest:0:1', 'translateGid', ['forbid-guest:0:1']],
    hide: ['hide=*.{a\\,b}', 'hide', ['*.{a,b}']], only: ['only=[.]x', 'only', ['[.]x']],
    max_size: ['max_size=3G', 'maxSize', 3 * 2 ** 30],
    allow_direct_io: ['allow_direct_io', 'allowDirectIo', true], direct: ['direct', 'direct', true], no_readdirplus: ['no_readdirplus', 'readdirplus', false],
    timeout: ['timeout=2.5', 'timeout', 2.5], on_disconnect: ['on_disconnect=wait', 'onDisconnect', 'wait'],
    mount_timeout: ['mount_timeout=3', 'mountTimeout', 3], trace_json: ['trace_json=/tmp/t', 'traceJson', '/tmp/t'], fsname: ['fsname=host:/dir', 'fsname', 'host:/dir'],
    auto_unmount: ['auto_unmount', 'autoUnmount', true],
    supervise: ['supervise', 'supervise', true],
    audit: ['audit=/var/log/audit', 'audit', '/var/log/audit'], idle_timeout: ['idle_timeout=600', 'idleTimeout', 600], log: ['log=/var/log/x', 'log', '/var/log/x'],
    allow_other: ['allow_other', 'allowOther', true], no_allow_other: ['no_allow_other', 'allowOther', false],
    default_permissions: ['default_permissions', 'defaultPermissions', true], no_default_permissions: ['no_default_permissions', 'defaultPermissions', false],
  }
  for (const row of optionTable) {
    const example = examples[row.name]
    if (!example) {
      t.fail(`no example for option ${row.name}`)
      continue
    }
    const [text, key, value] = example
    t.strictSame(parseMountOptions([text]), { [key]: value, mountFlags: 0 }, text)
    t.match(refused(row.value === undefined ? `${row.name}=1` : row.name), row.value === undefined ? /takes no value/ : /needs a value/, row.name)
    if (row.value !== undefined) t.match(refused(`${row.name}=`), row.choices ? new RegExp(`^option ${row.name} needs a value: .*${row.choices.at(-1)!}$`) : `option ${row.name} needs a value: ${row.name}=${row.value}`, `${row.name} with an empty value`)
    for (const choice of row.choices ?? []) t.equal((parseMountOptions([`${row.name}=${choice}`]) as Record<string, unknown>)[row.key], choice)
    if (row.choices) t.match(refused(`${row.name}=${row.choices[0]}x`), /expected/)
  }
})

t.test('lists: several, in order, the last one counts', async t => {
  t.match(parseMountOptions(['cache=auto,queues=2', 'cache=never']), { cache: 'never', queues: 2 })
  t.match(parseMountOptions(['allow_other,no_allow_other']), { allowOther: false })
  t.match(parseMountOptions(['translate_uid=guest:0:1:1,translate_uid=host:1:0:1', 'translate_uid=guest:5:6:1']), { translateUid: ['guest:0:1:1', 'host:1:0:1', 'guest:5:6:1'] }, 'these add up')
  t.match(parseMountOptions(['fsname=a=b=c']), { fsname: 'a=b=c' })
})

t.test('a comma or a backslash in a value is escaped by a backslash', async t => {
  t.match(parseMountOptions(['fsname=a\\,b,ro']), { fsname: 'a,b', readonly: true })
  t.match(parseMountOptions(['fsname=a\\\\,ro']), { fsname: 'a\\', readonly: true })
  t.match(parseMountOptions(['fsname=\\,\\,,queues=3']), { fsname: ',,', queues: 3 })
  t.match(parseMountOptions(['socket=/tmp/line\\\nbreak']), { socket: '/tmp/line\nbreak' })
  t.match(parseMountOptions(['socket=/tmp/line\nbreak,ro']), { socket: '/tmp/line\nbreak', readonly: true })
})

t.test('unknown and bad values are refused, and say what was wrong', async t => {
  t.equal(refused('nonsense'), 'unknown option "nonsense"')
  t.equal(refused('nonsense=1'), 'unknown option "nonsense=1"')
  t.equal(refused('ro=1'), 'option ro=1: ro takes no value')
  t.match(refused('toString'), /unknown option/)
  t.match(refused('__proto__'), /unknown option/)
  t.match(refused('constructor=1'), /unknown option/)
  for (const value of ['0', '-1', '1.5', '1e3', '0x10', 'many', ' 1']) {
    t.match(refused(`queues=${value}`), new RegExp(`option queues=${value}: expected a whole number from 1`))
    t.match(refused(`queue_size=${value}`), /whole number/)
  }
  for (const value of ['on', '-1', '1.5', '2us']) t.match(refused(`poll=${value}`), /auto, off or microseconds/)
  for (const value of ['0', '-1', 'soon', '86401', 'NaN', 'Infinity']) t.match(refused(`timeout=${value}`), /seconds/)
  t.match(refused('xattrmap=:ok:all::'), /^option xattrmap=:ok:all::: rule 1 is incomplete/)
  t.match(refused('translate_gid=map:0:10:5,translate_gid=guest:4:9:1'), /^option translate_gid=guest:4:9:1: overlaps another rule/)
  t.match(refused('hide=a/b'), /^option hide=a\/b: a pattern is for one name/)
  t.match(refused('cache=sometimes'), /^option cache=sometimes: expected auto, always, metadata, never or coherent$/)
})

t.test('a name that is mistyped: the nearest is said', async t => {
  const meant: [typed: string, meant: string][] = [
    ['cahce=always', 'cache=always'], ['cache_=always', 'cache=always'], ['qeues=4', 'queues=4'], ['queues4', 'queues=N'], ['timout', 'timeout=SECONDS'], ['timeout =3', 'timeout=3'], ['posixacl', 'posix_acl'],
    ['posix-acl', 'posix_acl'], ['no-allow-other', 'no_allow_other'], ['allowother', 'allow_other'], ['RO', 'ro'], [' ro', 'ro'], ['noatme', 'noatime'], ['big-writes', 'big_writes'], ['on_disconect=wait', 'on_disconnect=wait'],
  ]
  for (const [typed, name] of meant) t.equal(refused(typed), `unknown option "${typed}" (did you mean ${name}?)`)
  for (const typed of ['x', 'ab', 'nonsense', 'acl', 'rox', 'toString']) t.equal(refused(typed), `unknown option "${typed}"`, 'nothing is like it')
})

t.test('options of other FUSE file systems: what is always so is taken, else it is said what does the same', async t => {
  t.strictSame(parseMountOptions(['nonempty,big_writes,large_read,use_ino,readdir_ino,hard_remove,intr,noauto_cache,clone_fd,idmap=none,max_read=0,dax=never']), { mountFlags: 0 })
  t.match(refused('user_id=0'), /unknown option/, 'what is the kernel\'s alone is refused')
  t.equal(refused('intr=1'), 'option intr=1: intr takes no value')
  const instead: Record<string, RegExp> = {
    kernel_cache: /use cache=always$/, auto_cache: /use cache=coherent/, direct_io: /use cache=never$/, 'attr_timeout=5': /cache=never, cache=auto/, 'entry_timeout=0': /cache=never/, 'max_read=131072': /agree/, 'max_write=4096': /agree/,
    'uid=1000': /translate_uid=squash-host:0:1000:4294967295 /, 'gid=users': /translate_gid=squash-host:0:ID:4294967295 /, 'umask=022': /bindfs/, 'idmap=user': /translate_uid=map:/, reconnect: /use on_disconnect=wait$/,
    follow_symlinks: /as they are/, debug: /DEBUG='virtiofs:\*'.* -f/, allow_root: /use allow_other/, 'port=2222': /ssh:\/\/HOST:2222\/PATH$/, 'ssh_command=ssh -v': /rsh=COMMAND/,
    'IdentityFile=/root/key': /rsh='ssh -o IdentityFile=\/root\/key'/, 'dax=always': /no DAX/, dax: /no DAX/, 'setuid=me': /mount\.fuse3/, 'force-user=1000': /squash-host:0:1000:/,
  }
  for (const [option, message] of Object.entries(instead)) {
    t.match(refused(option), message, option)
    t.ok(refused(option).startsWith(`option ${option}: `))
    t.doesNotThrow(() => parseMountOptions([option], { sloppy: true }))
  }
  const [, rule] = / (translate_uid=\S+) /.exec(refused('uid=1000'))!
  t.match(parseMountOptions([rule!]), { translateUid: ['squash-host:0:1000:4294967295'] }, 'what is advised is taken')
  const names = new Set(optionTable.map(({ name }) => name))
  for (const [name, advice] of Object.entries(foreignOptions)) {
    t.notOk(names.has(name), `${name} is none of ours`)
    for (const [, word] of (typeof advice === 'string' ? advice : advice(name, '1')).matchAll(/(?<![\w-])([a-z_]+)=/g)) t.ok(names.has(word!), `${name}: ${word} is one`)
  }
})

t.test('flags of mount(2)', async t => {
  const set: [string, number][] = [
    ['nosuid', MS_NOSUID], ['nodev', MS_NODEV], ['noexec', MS_NOEXEC], ['sync', MS_SYNCHRONOUS], ['dirsync', MS_DIRSYNC], ['noatime', MS_NOATIME],
    ['nodiratime', MS_NODIRATIME], ['relatime', MS_RELATIME], ['strictatime', MS_STRICTATIME], ['lazytime', MS_LAZYTIME], ['nosymfollow', MS_NOSYMFOLLOW],
  ]
  for (const [name, flag] of set) {
    t.strictSame(parseMountOptions([name]), { mountFlags: flag }, name)
    t.strictSame(mountFlagNames(flag), [name])
  }
  t.strictSame(parseMountOptions(['ro']), { readonly: true, mountFlags: MS_RDONLY })
  const opposites = ['nosuid,suid', 'nodev,dev', 'noexec,exec', 'sync,async', 'noatime,atime', 'nodiratime,diratime', 'relatime,norelatime', 'strictatime,nostrictatime', 'lazytime,nolazytime', 'nosymfollow,symfollow', 'ro,rw']
  for (const pair of opposites) t.strictSame(parseMountOptions([pair]), { mountFlags: 0 }, pair)
  t.strictSame(parseMountOptions(['rw,ro']), { readonly: true, mountFlags: MS_RDONLY }, 'the last one counts')
  t.strictSame(mountFlagNames(MS_RDONLY | MS_NODEV | MS_NOSUID), ['ro', 'nosuid', 'nodev'])
  t.strictSame(mountFlagNames(0), [])
  // the values are the kernel's (include/uapi/linux/mount.h)
  t.strictSame([MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_DIRSYNC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME], [1, 2, 4, 8, 16, 128, 256, 1024, 2048])
})

t.test('options that are mount(8)\'s own', async t => {
  t.strictSame(parseMountOptions(['user,nouser,users,nousers,owner,group,nofail,auto,noauto,_netdev,x-systemd.automount,x-gvfs-show,x-mount.mkdir=0755,subtype=x,user=joe']), { mountFlags: 0 })
})

t.test('poll in microseconds', async t => {
  t.equal(pollMicroseconds('off'), 0)
  t.equal(pollMicroseconds(75), 75)
  t.equal(pollMicroseconds('auto'), pollMicroseconds(undefined))
  t.ok(pollMicroseconds() > 0)
})

t.test('what mount(8) and systemd add is passed over; a remount is refused; sloppy passes over anything', async t => {
  t.strictSame(parseMountOptions(['nofail,noauto,_netdev,user=joe,users,comment=x=y,x-systemd.automount,X-mount.mkdir=0700,subtype=virtiofs-bridge,iversion']), { mountFlags: 0 })
  t.match(refused('remount,ro'), /cannot be changed by remount/)
  t.strictSame(parseMountOptions(['glub,glab=1,ro'], { sloppy: true }), { mountFlags: MS_RDONLY, readonly: true })
  t.throws(() => parseMountOptions(['queues=none'], { sloppy: true }), /whole number/, 'a wrong value is wrong all the same')
})
