/** Sources on another host: what command they become, and what is refused. */
import t from 'tap'
import { parseMountOptions, formatMountOptions } from '../../lib/mount/options.js'
import { farOptions, FORWARDED } from '../../lib/mount/relay-options.js'
import { parseRemote } from '../../lib/mount/remote-source.js'
import { parseSource } from '../../lib/mount/source.js'
import { quoteForShell, splitWords } from '../../lib/mount/split-words.js'

const SSH = ['ssh', '-oBatchMode=yes', '-oServerAliveInterval=15', '-oServerAliveCountMax=3', '-T', '-x']

t.test('words without a shell', async t => {
  const words: [string, string[]][] = [
    ['a b  c', ['a', 'b', 'c']], [' a\tb\n', ['a', 'b']], ['a\\ b c', ['a b', 'c']], ['\'a "b\' "c \'d" e\'f\'g', ['a "b', 'c \'d', 'efg']],
    ['"a\\"b\\\\c\\d"', ['a"b\\c\\d']], ['a \'\' ""', ['a', '', '']], ['echo $HOME *; rm `x`', ['echo', '$HOME', '*;', 'rm', '`x`']], ['\'a\\\'', ['a\\']],
  ]
  for (const [text, expected] of words) t.strictSame(splitWords(text, 'it'), expected, text)
  for (const text of ['', ' ', '\'a', '"a', '"a\\"', 'a\\', '\'\' a', 'a\0b']) t.throws(() => splitWords(text, 'it'), { name: 'UsageError', message: /^it: / }, text)
})

t.test('exec:', async t => {
  t.strictSame(parseRemote('exec:cat /a \'b c\'', {}), { argv: ['cat', '/a', 'b c'], path: 'b c' })
  t.match(parseSource('exec:virtiofs-bridge relay /srv/tree', {}), { kind: 'remote', argv: ['virtiofs-bridge', 'relay', '/srv/tree'], tag: 'tree' })
  t.match(parseSource('exec:x /srv/tree', { tag: 'mine' }), { tag: 'mine' })
  t.throws(() => parseSource('exec:', {}), { message: 'source exec:: the command is empty' })
  t.throws(() => parseSource('exec:a', { rsh: 'x' }), { message: /option rsh needs a source ssh:/ })
  t.throws(() => parseSource('exec:a', { relayCommand: 'x' }), { message: /option relay_command needs/ })
})

t.test('ssh://', async t => {
  const argv = (source: string, options = {}): readonly string[] => parseRemote(source, options)!.argv
  t.strictSame(argv('ssh://host/srv/tree'), [...SSH, 'host', 'virtiofs-bridge relay /srv/tree'])
  t.strictSame(argv('ssh://me@host:2222/'), [...SSH, '-p', '2222', '-l', 'me', 'host', 'virtiofs-bridge relay /'])
  t.strictSame(argv('ssh://a@b@[fe80::1%25eth0]:22/x'), [...SSH, '-p', '22', '-l', 'a@b', 'fe80::1%eth0', 'virtiofs-bridge relay /x'])
  t.strictSame(argv('ssh://h/it\'s%20$HOME;`x`').at(-1), 'virtiofs-bridge relay \'/it\'\\\'\'s $HOME;`x`\'')
  t.strictSame(argv('ssh://h/p', { rsh: 'dbclient -y', relayCommand: 'sudo vb' }), ['dbclient', '-y', 'h', 'sudo vb relay /p'])
  t.strictSame(argv('ssh://h/p', { rsh: '/usr/bin/ssh -i k' }).slice(0, 4), ['/usr/bin/ssh', '-i', 'k', '-oBatchMode=yes'])
  t.match(parseSource('ssh://h/srv/my%20tree', {}), { tag: 'my_tree' })
  for (const [source, message] of [
    ['ssh://-oProxyCommand=x/p', /host that begins with - is refused/], ['ssh://%2doProxyCommand=x/p', /host that begins with -/], ['ssh://[-x]/p', /host that begins with -/],
    ['ssh://-l@h/p', /user that begins with -/], ['ssh://%2Dl@h/p', /user that begins with -/], ['ssh://@h/p', /user is empty/], ['ssh:///p', /host is empty/],
    ['ssh://h', /has no path/], ['ssh://h:0/p', /port "0"/], ['ssh://h:65536/p', /port "65536"/], ['ssh://h:x/p', /port "x"/], ['ssh://h:/p', /port ""/],
    ['ssh://h/%zz', /a % that is not/], ['ssh://h/%00', /no NUL/], ['ssh://h%0a/p', /character that none has/], ['ssh://a b@h/p', /character that none has/], ['ssh://h;x/p', /character that none has/],
    ['ssh:h/p', /expected ssh:/], ['ssh://a[b/p', /expected ssh:/],
  ] as const) t.throws(() => parseSource(source, {}), { name: 'UsageError', code: 'EINVAL', message }, source)
})

t.test('a word for the far shell', async t => {
  t.equal(quoteForShell('/srv/tree-1_a.b'), '/srv/tree-1_a.b')
  t.equal(quoteForShell(''), '\'\'')
  t.equal(quoteForShell('a\'b\nc'), '\'a\'\\\'\'b\nc\'')
})

t.test('options for the far end', async t => {
  const all = 'cache=never,writeback,xattr,posix_acl,xattrmap=:ok:all:::,translate_uid=map:0:1:1,translate_uid=map:1:2:1,hide=a\\,b,only=*,max_size=10k,allow_direct_io,no_readdirplus,ro'
  const options = parseMountOptions([`${all},queues=2,poll=off,nosuid,timeout=3`])
  const texts = formatMountOptions(options, FORWARDED)
  t.strictSame(texts.sort(), all.match(/(?:\\.|[^,\\])+/g)!.map(text => text.replace('10k', '10240')).sort())
  const { mountFlags: _, ...again } = parseMountOptions(texts)
  t.strictSame(farOptions({}, texts), again)
  t.match(farOptions({ cache: 'never' }, ['xattr']), { cache: 'never', xattr: true })
  t.match(farOptions({ readonly: true }, ['ro']), { readonly: true })
  t.equal(farOptions({ readonly: true }, []).readonly, true)
  t.throws(() => farOptions({ hide: ['a'] }, ['hide=b']), { message: 'option hide is set otherwise at the far end' })
  for (const text of ['backend=virtiofsd', 'virtiofsd=/bin/sh', 'socket=/x', 'trace_json=/etc/passwd', 'audit=/x', 'direct', 'tag=x', 'rsh=x', 'log=/x']) {
    t.throws(() => farOptions({}, [text]), { name: 'UsageError', message: /is not for the near end to choose/ }, text)
  }
  t.throws(() => farOptions({}, ['nonsense']), { name: 'UsageError' })
})
