/** Sequences of calls that node:fs/promises and a connected file system must answer alike. */
import { constants, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import type { Subject } from './differential.js'

type Case = (s: Subject) => Promise<unknown>

const { COPYFILE_EXCL, COPYFILE_FICLONE, F_OK, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY, R_OK, W_OK, X_OK } = constants

/** A small tree: files a and b, directory d with file d/f, links to each. */
function tree(host: string): void {
  writeFileSync(`${host}/a`, 'content of a')
  writeFileSync(`${host}/b`, 'b')
  mkdirSync(`${host}/d`)
  writeFileSync(`${host}/d/f`, 'in d')
  mkdirSync(`${host}/empty`)
  for (const [name, target] of [['la', 'a'], ['ld', 'd'], ['dangling', 'nowhere'], ['loop1', 'loop2'], ['loop2', 'loop1']]) symlinkSync(target!, `${host}/${name}`)
}

/** Every kind of path, for calls that take one. */
const PATHS = [
  '/a', '/d', '/la', '/ld', '/dangling', '/loop1', '/none', '/none/below', '/a/below', '/a/', '/d/', '/la/', '/ld/', '/dangling/', '/ld/f', '/d/../a', '/d/./f', '/ld/../b',
  '//d///f', '/d/.', '/d/..', '/empty/..', '/a/.', '/a/..', `/${'n'.repeat(255)}`, `/${'n'.repeat(256)}`, `/${'p/'.repeat(2500)}`, '/d/f/', '/none/',
]

function each(method: string, ...args: unknown[]): Case {
  return async s => {
    tree(s.host)
    // realpath(3) takes a long path apart before it makes a call
    for (const path of method === 'realpath' ? PATHS.filter(path => path.length < 4096) : PATHS) await s.call(`${method} ${path.slice(0, 40)}`, () => s.fs[method](s.at(path), ...args))
    for (const path of ['/', '/a', '/d', '/la', '/ld']) await s.call(`lstat ${path} after all`, () => s.fs.lstat(s.at(path)))
    return s.call('names', async () => (await s.fs.readdir(s.at('/'))).sort())
  }
}

/** The same, with a fresh tree for every path, for calls that destroy. */
function eachAlone(name: string, act: (s: Subject, path: string) => Promise<unknown>, but: readonly string[] = []): Case {
  return async s => {
    for (const [i, path] of PATHS.filter(path => !but.includes(path)).entries()) {
      const at = (below: string): string => s.at(`/t${i}${below}`)
      mkdirSync(`${s.host}/t${i}`)
      tree(`${s.host}/t${i}`)
      const alone = Object.assign(Object.create(s) as Subject, { at })
      await s.call(`${name} ${path.slice(0, 40)}`, () => act(alone, path))
      await s.call(`names after ${path.slice(0, 40)}`, async () => (await s.fs.readdir(at('/'), { recursive: true })).sort())
    }
  }
}

export const cases: Record<string, Case> = {
  stat: each('stat'),
  'stat bigint': each('stat', { bigint: true }),
  lstat: each('lstat'),
  access: each('access'),
  'access R_OK|W_OK': each('access', R_OK | W_OK),
  'access X_OK': each('access', X_OK),
  'access F_OK': each('access', F_OK),
  readFile: each('readFile'),
  'readFile utf8': each('readFile', 'utf8'),
  readlink: each('readlink'),
  'readlink buffer': each('readlink', 'buffer'),
  realpath: each('realpath'),
  chmod: each('chmod', 0o640),
  'chmod text': each('chmod', '751'),
  lchown: each('lchown', 12, 34),
  chown: each('chown', 12, -1),
  utimes: each('utimes', 1000, 2000),
  lutimes: each('lutimes', 1000.5, new Date(2000)),
  truncate: each('truncate', 3),
  appendFile: each('appendFile', 'more'),
  writeFile: eachAlone('writeFile', (s, path) => s.fs.writeFile(s.at(path), 'new')),
  'writeFile wx': eachAlone('writeFile wx', (s, path) => s.fs.writeFile(s.at(path), 'new', { flag: 'wx' })),
  mkdir: eachAlone('mkdir', (s, path) => s.fs.mkdir(s.at(path))),
  'mkdir recursive': eachAlone('mkdir recursive', (s, path) => s.fs.mkdir(s.at(path), { recursive: true })),
  rmdir: eachAlone('rmdir', (s, path) => s.fs.rmdir(s.at(path))),
  unlink: eachAlone('unlink', (s, path) => s.fs.unlink(s.at(path))),
  rm: eachAlone('rm', (s, path) => s.fs.rm(s.at(path))),
  'rm recursive': eachAlone('rm recursive', (s, path) => s.fs.rm(s.at(path), { recursive: true }), [
    // node:fs says that it has removed the link, and has not
    '/ld/',
    // cannot be removed, but what is in it goes until that shows: how much depends on the order
    '/d/..', '/empty/..',
  ]),
  'rm force': eachAlone('rm force', (s, path) => s.fs.rm(s.at(path), { force: true })),
  symlink: eachAlone('symlink', (s, path) => s.fs.symlink('target', s.at(path))),
  'link to': eachAlone('link to', (s, path) => s.fs.link(s.at('/b'), s.at(path))),
  'link from': eachAlone('link from', (s, path) => s.fs.link(s.at(path), s.at('/hard'))),
  'rename from': eachAlone('rename from', (s, path) => s.fs.rename(s.at(path), s.at('/renamed'))),
  'rename a file to': eachAlone('rename a file to', (s, path) => s.fs.rename(s.at('/b'), s.at(path))),
  'rename a directory to': eachAlone('rename a directory to', (s, path) => s.fs.rename(s.at('/empty'), s.at(path))),
  'copyFile from': eachAlone('copyFile from', (s, path) => s.fs.copyFile(s.at(path), s.at('/copied'))),
  'copyFile to': eachAlone('copyFile to', (s, path) => s.fs.copyFile(s.at('/a'), s.at(path))),
  'copyFile exclusively': eachAlone('copyFile exclusively', (s, path) => s.fs.copyFile(s.at('/a'), s.at(path), COPYFILE_EXCL | COPYFILE_FICLONE)),
  'cp from': eachAlone('cp from', (s, path) => s.fs.cp(s.at(path), s.at('/copied'), { recursive: true })),
  'cp from, without recursive': eachAlone('cp from', (s, path) => s.fs.cp(s.at(path), s.at('/copied'))),
  'cp to': eachAlone('cp to', (s, path) => s.fs.cp(s.at('/d'), s.at(path), { recursive: true })),
  'cp dereference': eachAlone('cp dereference', (s, path) => s.fs.cp(s.at(path), s.at('/copied'), { recursive: true, dereference: true })),
  'cp a file, errorOnExist': eachAlone('cp', (s, path) => s.fs.cp(s.at('/a'), s.at(path), { force: false, errorOnExist: true })),
  mkdtemp: async s => {
    for (const prefix of ['/t-', '/none/t-', '/d/']) {
      await s.call(`mkdtemp ${prefix}`, async () => {
        const made = await s.fs.mkdtemp(s.at(prefix)).catch((error: NodeJS.ErrnoException) => error) as string | NodeJS.ErrnoException
        if (typeof made !== 'string') return [made.code, made.syscall, made.path!.slice(0, -6)]
        return [made.slice(0, -6), /^[a-zA-Z0-9]{6}$/.test(made.slice(-6)), (await s.fs.stat(made)).mode]
      })
    }
  },
  ...Object.fromEntries(['r', 'r+', 'w', 'wx', 'w+', 'a', 'ax', 'a+', 'rs+', 'as'].map(flag => [`open ${flag}`, eachAlone(`open ${flag}`, async (s, path) => {
    const handle = await s.fs.open(s.at(path), flag, 0o604)
    const got: unknown[] = []
    const attempt = async (act: () => Promise<unknown>): Promise<void> => {
      got.push(await act().then(value => value, (error: NodeJS.ErrnoException) => [error.code, error.syscall, error.message]))
    }
    await attempt(async () => (await handle.write('xyz')).bytesWritten)
    await attempt(async () => (await handle.read(Buffer.alloc(20), 0, 20, 0)).bytesRead)
    await attempt(async () => (await handle.readFile('latin1')))
    await attempt(() => handle.truncate(2))
    await attempt(() => handle.sync())
    await attempt(() => handle.datasync())
    await attempt(async () => (await handle.stat()).size > 1e6 ? 'large' : 'small')
    await handle.close()
    return got
  })])),
  ...Object.fromEntries([O_RDONLY | O_DIRECTORY, O_RDONLY | O_NOFOLLOW, O_WRONLY | O_NOFOLLOW, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, O_WRONLY | O_CREAT | O_NOFOLLOW, O_WRONLY | O_DIRECTORY]
    .map(flags => [`open 0${flags.toString(8)}`, eachAlone(`open 0${flags.toString(8)}`, async (s, path) => {
      const handle = await s.fs.open(s.at(path), flags)
      const { mode } = await handle.stat()
      await handle.close()
      return mode
    })])),
  opendir: eachAlone('opendir', async (s, path) => {
    const names = []
    for await (const entry of await s.fs.opendir(s.at(path))) names.push([entry.name, entry.isDirectory(), entry.isSymbolicLink()])
    return names.sort()
  }),
  readdir: eachAlone('readdir', async (s, path) => (await s.fs.readdir(s.at(path))).sort()),
  'readdir withFileTypes': eachAlone('readdir withFileTypes', async (s, path) => (await s.fs.readdir(s.at(path), { withFileTypes: true })).sort((a: { name: string }, b: { name: string }) => a.name < b.name ? -1 : 1)),
  'readdir recursive': eachAlone('readdir recursive', async (s, path) => (await s.fs.readdir(s.at(path), { recursive: true })).sort()),
  statfs: async s => {
    await s.call('statfs', async () => typeof (await s.fs.statfs(s.at('/'))).blocks)
    await s.call('statfs bigint', async () => typeof (await s.fs.statfs(s.at('/'), { bigint: true })).bavail)
    await s.call('statfs none', () => s.fs.statfs(s.at('/none')))
  },

  'modes of new files': async s => {
    for (const mode of [0o777, 0o600, '640', 0, 0o7777]) {
      await s.call(`writeFile ${mode}`, () => s.fs.writeFile(s.at(`/f${mode}`), '', { mode }))
      await s.call(`stat ${mode}`, () => s.fs.stat(s.at(`/f${mode}`)))
      await s.call(`mkdir ${mode}`, () => s.fs.mkdir(s.at(`/d${mode}`), mode))
      await s.call(`stat dir ${mode}`, () => s.fs.stat(s.at(`/d${mode}`)))
    }
  },
  'times': async s => {
    await s.fs.writeFile(s.at('/f'), '')
    // libuv cuts fractions to microseconds, later versions to nanoseconds; Node 20 takes negative numbers for now
    const times = [0, 1, 1.5, 1e9 + 0.25, '1234', '1234.5', new Date(1234567890500), 4e9, NaN]
    for (const time of times) {
      await s.call(`utimes ${String(time)}`, () => s.fs.utimes(s.at('/f'), time, time))
      if (Number.isNaN(time)) continue
      await s.call(`times ${String(time)}`, async () => {
        const { atimeMs, mtimeMs, atime, mtime } = await s.fs.stat(s.at('/f'))
        return [atimeMs, mtimeMs, atime.getTime(), mtime.getTime()]
      })
      await s.call(`bigint times ${String(time)}`, async () => {
        const { atimeNs, mtimeNs, atimeMs, mtimeMs } = await s.fs.stat(s.at('/f'), { bigint: true })
        return [atimeNs, mtimeNs, atimeMs, mtimeMs].map(String)
      })
    }
    for (const time of ['soon', '', null, undefined, {}]) await s.call(`utimes ${String(time)}`, () => s.fs.utimes(s.at('/f'), time, 1))
    const handle = await s.fs.open(s.at('/f'), 'r')
    await s.call('futimes', () => handle.utimes(17, new Date(18500)))
    await s.call('futimes gave', async () => {
      const { atimeMs, mtimeMs } = await handle.stat()
      return [atimeMs, mtimeMs]
    })
    await handle.close()
    await s.call('futimes of a closed one', () => handle.utimes(1, 2))
  },
  'names': async s => {
    for (const name of ['ä', '日本語', 'a b', '*', '\\', '-', '..a', 'a..', '\u{1f600}', 'e\u0301', '\ud800', ' ']) {
      await s.call(`writeFile ${name}`, () => s.fs.writeFile(s.at(`/${name}`), name))
      await s.call(`readFile ${name}`, () => s.fs.readFile(s.at(`/${name}`), 'utf8'))
    }
    const raw = Buffer.concat([Buffer.from(s.at('/')), Buffer.from([0xff, 0xfe, 0x41])])
    await s.call('writeFile raw', () => s.fs.writeFile(raw, 'raw'))
    await s.call('readFile raw', () => s.fs.readFile(raw, 'latin1'))
    await s.call('readFile none', () => s.fs.readFile(Buffer.concat([raw, Buffer.from('none')])))
    await s.call('readdir', async () => (await s.fs.readdir(s.at('/'))).sort())
    await s.call('readdir buffer', async () => (await s.fs.readdir(s.at('/'), 'buffer')).map((name: Buffer) => name.toString('latin1')).sort())
    await s.call('readdir latin1', async () => (await s.fs.readdir(s.at('/'), 'latin1')).sort())
    await s.call('readdir recursive types', async () => (await s.fs.readdir(s.at('/'), { withFileTypes: true, encoding: 'buffer' })).map((entry: { name: Buffer }) => entry.name.toString('hex')).sort())
    await s.call('url', () => s.fs.readFile(pathToFileURL(s.at('/a b')), 'utf8'))
    await s.call('Uint8Array', () => s.fs.readFile(new Uint8Array(Buffer.from(s.at('/*'))), 'utf8'))
    await s.call('symlink raw', () => s.fs.symlink(Buffer.from([0xff, 0x42]), s.at('/link')))
    await s.call('readlink raw', () => s.fs.readlink(s.at('/link'), 'hex'))
    await s.call('readlink utf8', () => s.fs.readlink(s.at('/link')))
  },
  'wrong arguments': async s => {
    for (const path of [undefined, null, 1, {}, [], 'a\0b', Buffer.from('a\0'), '']) {
      for (const method of ['stat', 'open', 'mkdir', 'readdir', 'unlink', 'access', 'readFile', 'rmdir', 'opendir', 'readlink']) await s.call(`${method} ${String(path)}`, () => s.fs[method](path))
      for (const method of ['rename', 'link', 'symlink', 'copyFile']) await s.call(`${method} ${String(path)}`, () => s.fs[method](s.at('/x'), path))
    }
    for (const flag of ['', 'x', 'rw', 'R', 1.5, {}, 'r+r']) await s.call(`flag ${String(flag)}`, () => s.fs.open(s.at('/none'), flag))
    for (const mode of ['9', '', 'rwx', -1, 1.5, 2 ** 32, {}]) {
      await s.call(`mode ${String(mode)}`, () => s.fs.mkdir(s.at('/m'), mode === '' || typeof mode === 'object' ? { mode } : mode))
      await s.call(`chmod ${String(mode)}`, () => s.fs.chmod(s.at('/none'), mode))
    }
    for (const id of [-2, 1.5, 2 ** 32, '1', undefined]) await s.call(`chown ${String(id)}`, () => s.fs.chown(s.at('/none'), id, 1))
    for (const encoding of ['none', 'utf-16', 5]) await s.call(`encoding ${String(encoding)}`, () => s.fs.readFile(s.at('/none'), encoding))
    for (const mode of [-1, 8, 'r']) await s.call(`access ${String(mode)}`, () => s.fs.access(s.at('/none'), mode))
    for (const length of [-1, 1.5, '1', {}]) {
      await s.fs.writeFile(s.at('/t'), 'text')
      await s.call(`truncate ${String(length)}`, () => s.fs.truncate(s.at('/t'), length))
    }
    for (const data of [undefined, null, 5, {}, () => {}]) await s.call(`writeFile ${String(data)}`, () => s.fs.writeFile(s.at('/w'), data))
    for (const signal of [5, {}, null]) await s.call(`signal ${String(signal)}`, () => s.fs.readFile(s.at('/t'), { signal }))
    await s.call('aborted', () => s.fs.readFile(s.at('/t'), { signal: AbortSignal.abort() }))
    await s.call('aborted write', () => s.fs.writeFile(s.at('/t'), 'x', { signal: AbortSignal.abort() }))
  },

  'FileHandle: reading': async s => {
    await s.fs.writeFile(s.at('/f'), '0123456789abcdef')
    const handle = await s.fs.open(s.at('/f'), 'r')
    const read = (name: string, ...args: unknown[]): Promise<unknown> => s.call(name, async () => {
      const { bytesRead, buffer } = await handle.read(...args)
      return [bytesRead, Buffer.from(buffer.buffer, buffer.byteOffset, Math.min(buffer.byteLength, 20)).toString('latin1')]
    })
    await read('3', Buffer.alloc(8), 0, 3)
    await read('on', Buffer.alloc(8), 2, 3, null)
    await read('at 1', Buffer.alloc(8), 0, 8, 1)
    await read('at -1', Buffer.alloc(4), 0, 4, -1)
    await read('options', { buffer: Buffer.alloc(5), position: 2, length: 4, offset: 1 })
    await read('buffer, options', Buffer.alloc(5), { position: 2 })
    await read('default buffer', { position: 0 })
    await read('behind the end', Buffer.alloc(4), 0, 4, 100)
    await read('nothing', Buffer.alloc(0))
    await read('length 0', Buffer.alloc(4), 0, 0)
    await read('words', new Uint16Array(4), 0, 8, 0)
    await read('view', new DataView(new ArrayBuffer(8), 2, 4), 0, 4, 4)
    // Node 20 takes any wrong position, and a BigInt, for none
    for (const [offset, length, position] of [[-1, 1, 0], [9, 1, 0], [0, 9, 0], [0, -1, 0], [1.5, 1, 0], ['0', 1, 0]]) {
      await read(`wrong ${String([offset, length, position])}`, Buffer.alloc(8), offset, length, position)
    }
    await read('no buffer', 'text')
    await s.call('readv', async () => {
      const buffers = [Buffer.alloc(3), Buffer.alloc(5), Buffer.alloc(20)]
      const { bytesRead } = await handle.readv(buffers, 1)
      return [bytesRead, ...buffers.map(String)]
    })
    await s.call('readv of nothing', async () => (await handle.readv([])).bytesRead)
    await s.call('readv wrongly', () => handle.readv(['a']))
    await s.call('readFile goes on', () => handle.readFile('utf8'))
    await s.call('readFile at the end', () => handle.readFile('utf8'))
    await s.call('write to it', () => handle.write('x'))
    await s.call('truncate it', () => handle.truncate())
    await s.call('close', () => handle.close())
    await read('closed', Buffer.alloc(4))
    for (const method of ['stat', 'sync', 'datasync', 'readFile', 'truncate']) await s.call(`${method} closed`, () => handle[method]())
    await s.call('chmod closed', () => handle.chmod(0o644))
    await s.call('close again', () => handle.close())
  },
  'FileHandle: writing': async s => {
    const handle = await s.fs.open(s.at('/f'), 'w+')
    const write = (name: string, ...args: unknown[]): Promise<unknown> => s.call(name, async () => (await handle.write(...args)).bytesWritten)
    await write('text', 'hello')
    await write('text at', 'HE', 0)
    await write('latin1', 'é', null, 'latin1')
    await write('bytes', Buffer.from('0123456789'), 2, 5)
    await write('options', Buffer.from('0123456789'), { offset: 1, length: 2, position: 20 })
    await write('nothing', '')
    await write('words', new Uint16Array([0x4142, 0x4344]))
    for (const [offset, length] of [[-1, 1], [11, 1], [0, 11], [0, -1], [0.5, 1]]) await write(`wrong ${String([offset, length])}`, Buffer.from('0123456789'), offset, length)
    for (const data of [5, null, undefined, {}]) await write(`wrong ${String(data)}`, data)
    await s.call('writev', async () => (await handle.writev([Buffer.from('one'), Buffer.from('two')])).bytesWritten)
    await s.call('writev at', async () => (await handle.writev([Buffer.from('one'), new Uint8Array(2)], 40)).bytesWritten)
    await s.call('writev of nothing', async () => (await handle.writev([])).bytesWritten)
    await s.call('content', () => s.fs.readFile(s.at('/f')))
    await s.call('chmod', () => handle.chmod(0o600))
    await s.call('chown', () => handle.chown(5, 6))
    await s.call('truncate to less', () => handle.truncate(4))
    await s.call('truncate to more', () => handle.truncate(8))
    await s.call('truncate below 0', () => handle.truncate(-5))
    await s.call('stat', () => handle.stat())
    await s.call('stat bigint', () => handle.stat({ bigint: true }))
    await s.call('sync', () => handle.sync())
    await s.call('datasync', () => handle.datasync())
    await s.call('writeFile of an iterable', () => handle.writeFile(['a', 'b', Buffer.from('c')]))
    await s.call('writeFile of a stream', () => handle.writeFile(Readable.from(['d', 'e'])))
    await s.call('appendFile', () => handle.appendFile('f', 'latin1'))
    await s.call('close', () => handle.close())
    await s.call('content at last', () => s.fs.readFile(s.at('/f')))
    await s.call('writeFile to a handle', async () => {
      const other = await s.fs.open(s.at('/g'), 'w')
      await s.fs.writeFile(other, 'by handle')
      await s.fs.appendFile(other, '!')
      await other.close()
      return s.fs.readFile(s.at('/g'), 'utf8')
    })
  },
  'FileHandle: appending': async s => {
    await s.fs.writeFile(s.at('/f'), 'start')
    const handle = await s.fs.open(s.at('/f'), 'a+')
    await s.call('write', async () => (await handle.write('1')).bytesWritten)
    await s.call('write at 0', async () => (await handle.write('2', 0)).bytesWritten)
    await s.call('writev', async () => (await handle.writev([Buffer.from('3'), Buffer.from('4')], 0)).bytesWritten)
    await s.call('both', () => Promise.all([handle.write('5'), handle.write('6')]).then(() => 'written'))
    await s.call('content', async () => (await s.fs.readFile(s.at('/f'), 'utf8')).split('').sort().join(''))
    await handle.close()
  },
  'files larger than a request': async s => {
    const data = Buffer.alloc(5_000_003, 'abcdefg')
    await s.call('writeFile', () => s.fs.writeFile(s.at('/f'), data))
    await s.call('readFile', async () => (await s.fs.readFile(s.at('/f'))).equals(data))
    const handle = await s.fs.open(s.at('/f'), 'r+')
    await s.call('read', async () => {
      const { bytesRead, buffer } = await handle.read(Buffer.alloc(6_000_000), 0, 6_000_000, 1)
      return [bytesRead, buffer.subarray(0, bytesRead).equals(data.subarray(1))]
    })
    await s.call('write', async () => (await handle.write(data, 0, data.length, 1_000_000)).bytesWritten)
    await s.call('size', async () => (await handle.stat()).size)
    await handle.close()
    await s.call('copyFile', () => s.fs.copyFile(s.at('/f'), s.at('/g')))
    await s.call('same', async () => (await s.fs.readFile(s.at('/g'))).equals(await s.fs.readFile(s.at('/f'))))
  },
  'sparse files': async s => {
    const handle = await s.fs.open(s.at('/f'), 'w+')
    await s.call('write far', async () => (await handle.write('end', 2 ** 40)).bytesWritten)
    await s.call('stat', () => handle.stat())
    await s.call('read', async () => String((await handle.read(Buffer.alloc(5), 0, 5, 2 ** 40 - 2)).buffer))
    await s.call('readFile of too much', () => handle.readFile())
    await handle.close()
  },
  'streams': async s => {
    await s.fs.writeFile(s.at('/f'), Buffer.alloc(300_000, '0123456789'))
    const reading = async (name: string, options: object): Promise<unknown> => s.call(name, async () => {
      const handle = await s.fs.open(s.at('/f'))
      const stream = handle.createReadStream(options)
      const sizes = []
      let bytes = 0
      for await (const chunk of stream) {
        sizes.push(chunk.length)
        bytes += chunk.length
      }
      return [bytes, sizes[0], stream.bytesRead, stream.destroyed]
    })
    await reading('whole', {})
    await reading('start', { start: 100_000 })
    await reading('start and end', { start: 5, end: 10 })
    await reading('one byte', { start: 5, end: 5 })
    await reading('behind the end', { start: 400_000 })
    await reading('small chunks', { highWaterMark: 1000, end: 9_999 })
    await reading('text', { encoding: 'utf8', end: 99 })
    await s.call('text', async () => text((await s.fs.open(s.at('/f'))).createReadStream({ end: 14 })))
    await s.call('lines', async () => {
      await s.fs.writeFile(s.at('/lines'), 'one\ntwo\r\nthree')
      const lines = []
      for await (const line of (await s.fs.open(s.at('/lines'))).readLines()) lines.push(line)
      return lines
    })
    await s.call('web stream', async () => {
      const handle = await s.fs.open(s.at('/f'))
      let bytes = 0
      for await (const chunk of handle.readableWebStream()) bytes += (chunk as ArrayBuffer).byteLength
      await handle.close()
      return bytes
    })
    await s.call('write', async () => {
      const stream = (await s.fs.open(s.at('/w'), 'w')).createWriteStream()
      for (let i = 0; i < 100; i++) if (!stream.write(`line ${i}\n`.repeat(100))) await new Promise(resolve => stream.once('drain', resolve))
      await new Promise((resolve, reject) => stream.end('end').once('close', resolve).once('error', reject))
      return [stream.bytesWritten, (await s.fs.readFile(s.at('/w'), 'latin1')).length]
    })
    await s.call('write in the middle', async () => {
      const stream = (await s.fs.open(s.at('/w'), 'r+')).createWriteStream({ start: 3 })
      await new Promise((resolve, reject) => stream.end('XYZ').once('close', resolve).once('error', reject))
      return (await s.fs.readFile(s.at('/w'), 'latin1')).slice(0, 10)
    })
    await s.call('append', async () => {
      const stream = (await s.fs.open(s.at('/w'), 'a')).createWriteStream()
      stream.write('one')
      await new Promise((resolve, reject) => stream.end('two').once('close', resolve).once('error', reject))
      return (await s.fs.readFile(s.at('/w'), 'latin1')).slice(-9)
    })
    await s.call('a stream that is destroyed closes its file', async () => {
      const handle = await s.fs.open(s.at('/f'))
      const stream = handle.createReadStream()
      await new Promise(resolve => stream.once('data', resolve))
      stream.destroy()
      await new Promise(resolve => stream.once('close', resolve))
      return handle.stat().then(() => 'open', (error: NodeJS.ErrnoException) => error.code)
    })
    await s.call('a stream on a file that is for writing', async () => {
      const stream = (await s.fs.open(s.at('/w'), 'a')).createReadStream()
      return text(stream)
    })
  },
  'Dir': async s => {
    for (let i = 0; i < 300; i++) await s.fs.writeFile(s.at(`/f${i}`), '')
    await s.fs.mkdir(s.at('/d/e'), { recursive: true })
    await s.call('read by read', async () => {
      const dir = await s.fs.opendir(s.at('/'))
      const names = []
      for (let entry = await dir.read(); entry !== null; entry = await dir.read()) names.push(entry.name)
      const again = await dir.read()
      await dir.close()
      return [names.sort(), again, await (async () => dir.read())().catch((error: NodeJS.ErrnoException) => error.code), await dir.close().catch((error: NodeJS.ErrnoException) => error.code)]
    })
    await s.call('left early', async () => {
      const dir = await s.fs.opendir(s.at('/'))
      for await (const entry of dir) if (entry.name) break
      return dir.close().catch((error: NodeJS.ErrnoException) => error.code)
    })
    await s.call('recursive', async () => {
      const names = []
      for await (const entry of await s.fs.opendir(s.at('/'), { recursive: true })) names.push(entry.name)
      return names.sort()
    })
    await s.call('path', async () => {
      const dir = await s.fs.opendir(s.at('/d'))
      const { path } = dir
      await dir.close()
      return path
    })
    await s.call('removed while it is open', async () => {
      await s.fs.mkdir(s.at('/gone'))
      const dir = await s.fs.opendir(s.at('/gone'))
      await s.fs.rmdir(s.at('/gone'))
      const entry = await dir.read()
      await dir.close()
      return entry
    })
  },
  'a file that is removed while it is open': async s => {
    await s.fs.writeFile(s.at('/f'), 'still there')
    const handle = await s.fs.open(s.at('/f'), 'r+')
    await s.fs.unlink(s.at('/f'))
    await s.call('stat by path', () => s.fs.stat(s.at('/f')))
    await s.call('readFile', () => handle.readFile('utf8'))
    await s.call('write', async () => (await handle.write('!')).bytesWritten)
    await s.call('stat', () => handle.stat())
    await s.call('chmod', () => handle.chmod(0o600))
    await s.call('close', () => handle.close())
  },
  'links and counts': async s => {
    await s.fs.writeFile(s.at('/f'), 'x')
    await s.fs.link(s.at('/f'), s.at('/g'))
    await s.call('two', () => s.fs.stat(s.at('/f')))
    await s.fs.writeFile(s.at('/g'), 'longer')
    await s.call('the same', () => s.fs.stat(s.at('/f')))
    await s.fs.unlink(s.at('/f'))
    await s.call('one', () => s.fs.stat(s.at('/g')))
    await s.fs.rename(s.at('/g'), s.at('/h'))
    await s.call('moved', () => s.fs.stat(s.at('/h')))
    await s.call('not there', () => s.fs.stat(s.at('/g')))
    await s.fs.mkdir(s.at('/d'))
    await s.fs.mkdir(s.at('/d/e'))
    await s.call('directory', () => s.fs.stat(s.at('/d')))
    await s.fs.rename(s.at('/d/e'), s.at('/e'))
    await s.call('directory with less', () => s.fs.stat(s.at('/d')))
    await s.call('into itself', () => s.fs.rename(s.at('/e'), s.at('/e/f')))
    await s.call('over a full one', async () => {
      await s.fs.writeFile(s.at('/e/x'), '')
      await s.fs.rename(s.at('/d'), s.at('/e'))
    })
  },
  'symbolic links': async s => {
    await s.fs.mkdir(s.at('/d/e'), { recursive: true })
    await s.fs.writeFile(s.at('/d/e/f'), 'found')
    let last = 'd/e/f'
    for (let i = 1; i <= 41; i++) {
      await s.fs.symlink(last, s.at(`/l${i}`))
      last = `l${i}`
    }
    for (const i of [1, 39, 40, 41]) await s.call(`through ${i}`, () => s.fs.readFile(s.at(`/l${i}`), 'utf8'))
    await s.fs.symlink(s.at('/d'), s.at('/absolute'))
    await s.call('absolute', () => s.fs.readFile(s.at('/absolute/e/f'), 'utf8'))
    await s.fs.symlink('../d/./e/', s.at('/d/up'))
    await s.call('up', () => s.fs.readFile(s.at('/d/up/f'), 'utf8'))
    await s.call('up and back', () => s.fs.realpath(s.at('/d/up/../up/f')))
    await s.fs.symlink('new', s.at('/creates'))
    await s.call('creates what it points to', () => s.fs.writeFile(s.at('/creates'), 'made'))
    await s.call('made', () => s.fs.readFile(s.at('/new'), 'utf8'))
    await s.fs.symlink('none/new', s.at('/cannot'))
    await s.call('cannot create', () => s.fs.writeFile(s.at('/cannot'), ''))
    await s.call('exclusively', () => s.fs.open(s.at('/creates'), 'wx'))
    await s.call('empty target', () => s.fs.symlink('', s.at('/x')))
    await s.call('long target', () => s.fs.symlink('x'.repeat(4095), s.at('/x')))
    await s.call('too long target', () => s.fs.symlink('x'.repeat(4096), s.at('/y')))
    await s.call('lstat', () => s.fs.lstat(s.at('/x')))
  },
  'trees': async s => {
    for (const path of ['/s/1/a', '/s/1/b', '/s/2']) await s.fs.mkdir(s.at(path), { recursive: true })
    for (const path of ['/s/x', '/s/1/x', '/s/1/a/x', '/s/2/x']) await s.fs.writeFile(s.at(path), path)
    await s.fs.symlink('../x', s.at('/s/1/link'))
    await s.fs.chmod(s.at('/s/x'), 0o444)
    await s.fs.utimes(s.at('/s/x'), 100, 200)
    const list = (path: string): Promise<unknown> => s.call(`list ${path}`, async () => (await s.fs.readdir(s.at(path), { recursive: true })).sort())
    await s.call('cp', () => s.fs.cp(s.at('/s'), s.at('/new/s'), { recursive: true, preserveTimestamps: true }))
    await list('/new')
    await s.call('mode', () => s.fs.stat(s.at('/new/s/x')))
    await s.call('times', async () => (await s.fs.stat(s.at('/new/s/x'))).mtimeMs)
    await s.call('link', () => s.fs.readlink(s.at('/new/s/1/link')))
    await s.call('cp again', () => s.fs.cp(s.at('/s'), s.at('/new/s'), { recursive: true }))
    await s.call('cp with force', () => s.fs.cp(s.at('/s'), s.at('/new/s'), { recursive: true, force: true, verbatimSymlinks: true }))
    await s.call('verbatim link', () => s.fs.readlink(s.at('/new/s/1/link')))
    await s.call('cp errorOnExist', () => s.fs.cp(s.at('/s'), s.at('/new/s'), { recursive: true, force: false, errorOnExist: true }))
    await s.call('cp filter', () => s.fs.cp(s.at('/s'), s.at('/filtered'), { recursive: true, filter: (from: string) => !from.endsWith('a') }))
    await list('/filtered')
    await s.call('cp into itself', () => s.fs.cp(s.at('/s'), s.at('/s/1/s'), { recursive: true }))
    await s.call('cp a directory over a file', () => s.fs.cp(s.at('/s/1'), s.at('/s/x'), { recursive: true }))
    await s.call('cp a file over a directory', () => s.fs.cp(s.at('/s/x'), s.at('/s/1'), { recursive: true }))
    await s.call('rm', () => s.fs.rm(s.at('/s')))
    await s.call('rm recursive', () => s.fs.rm(s.at('/s'), { recursive: true }))
    await list('/')
    await s.call('rm none', () => s.fs.rm(s.at('/s'), { recursive: true }))
    await s.call('rm none with force', () => s.fs.rm(s.at('/s'), { recursive: true, force: true }))
    await s.call('mkdir recursive', () => s.fs.mkdir(s.at('/a/b/c'), { recursive: true }))
    await s.call('mkdir recursive, some there', () => s.fs.mkdir(s.at('/a/b/d/e'), { recursive: true }))
    await s.call('mkdir recursive, all there', () => s.fs.mkdir(s.at('/a/b'), { recursive: true }))
    await s.call('mkdir recursive with a mode', () => s.fs.mkdir(s.at('/m/n'), { recursive: true, mode: 0o700 }))
    await s.call('mode of it', () => s.fs.stat(s.at('/m')))
    await s.fs.writeFile(s.at('/file'), '')
    await s.call('mkdir recursive over a file', () => s.fs.mkdir(s.at('/file'), { recursive: true }))
    await s.call('mkdir recursive below a file', () => s.fs.mkdir(s.at('/file/x'), { recursive: true }))
    await s.call('mkdir recursive far below a file', () => s.fs.mkdir(s.at('/file/x/y'), { recursive: true }))
    await s.call('mkdir without', () => s.fs.mkdir(s.at('/a/q/r')))
  },
  'many at once': async s => {
    await s.call('made', () => Promise.all(Array.from({ length: 200 }, (_, i) => s.fs.writeFile(s.at(`/f${i}`), `${i}`))).then(() => 'all'))
    await s.call('read', async () => (await Promise.all(Array.from({ length: 200 }, (_, i) => s.fs.readFile(s.at(`/f${i}`), 'utf8')))).join())
    await s.call('removed', () => Promise.all(Array.from({ length: 200 }, (_, i) => s.fs.unlink(s.at(`/f${i}`)))).then(() => 'all'))
    await s.call('empty', () => s.fs.readdir(s.at('/')))
    await s.call('one wins', async () => (await Promise.allSettled(Array.from({ length: 20 }, () => s.fs.mkdir(s.at('/d'))))).map(each => each.status).sort())
    await sleep(1)
  },
}
