/** renameat2(2) with flags. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fails, group, lstat, stat, touch } from './check.js'

export const rename2 = group('rename2', [
  {
    name: 'RENAME_NOREPLACE of an existing name is EEXIST and changes nothing',
    cites: 'renameat2(2), RENAME_NOREPLACE, EEXIST',
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'A')
      writeFileSync(join(dir, 'b'), 'B')
      fails('EEXIST', () => { sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_NOREPLACE) })
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'B')
      sys.rename2(join(dir, 'a'), join(dir, 'c'), sys.RENAME_NOREPLACE)
      assert.deepEqual(readdirSync(dir).sort(), ['b', 'c'])
    },
  },
  {
    name: 'RENAME_NOREPLACE sees a dangling symbolic link and an empty directory',
    cites: 'renameat2(2), RENAME_NOREPLACE',
    run(dir, sys) {
      touch(join(dir, 'a'))
      symlinkSync('nowhere', join(dir, 'l'))
      mkdirSync(join(dir, 'd'))
      fails('EEXIST', () => { sys.rename2(join(dir, 'a'), join(dir, 'l'), sys.RENAME_NOREPLACE) })
      fails('EEXIST', () => { sys.rename2(join(dir, 'd'), join(dir, 'a'), sys.RENAME_NOREPLACE) })
    },
  },
  {
    name: 'RENAME_EXCHANGE swaps two files',
    cites: 'renameat2(2), RENAME_EXCHANGE',
    needs: ['rename_exchange'],
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'A')
      writeFileSync(join(dir, 'b'), 'B')
      const inodes = [stat(join(dir, 'a')).ino, stat(join(dir, 'b')).ino]
      sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_EXCHANGE)
      assert.equal(readFileSync(join(dir, 'a'), 'utf8'), 'B')
      assert.deepEqual([stat(join(dir, 'b')).ino, stat(join(dir, 'a')).ino], inodes)
    },
  },
  {
    name: 'RENAME_EXCHANGE of a file and a directory with entries',
    cites: 'renameat2(2), RENAME_EXCHANGE: "may be of different types"',
    needs: ['rename_exchange'],
    run(dir, sys) {
      mkdirSync(join(dir, 'p'))
      mkdirSync(join(dir, 'd'))
      touch(join(dir, 'd', 'in'))
      writeFileSync(join(dir, 'p', 'f'), 'F')
      sys.rename2(join(dir, 'd'), join(dir, 'p', 'f'), sys.RENAME_EXCHANGE)
      assert.equal(readFileSync(join(dir, 'd'), 'utf8'), 'F')
      assert.deepEqual(readdirSync(join(dir, 'p', 'f')), ['in'])
      assert.equal(stat(`${dir}/p/f/..`).ino, stat(join(dir, 'p')).ino)
    },
  },
  {
    name: 'RENAME_EXCHANGE with a name that is not there is ENOENT',
    cites: 'renameat2(2), ENOENT',
    needs: ['rename_exchange'],
    run(dir, sys) {
      touch(join(dir, 'a'))
      fails('ENOENT', () => { sys.rename2(join(dir, 'a'), join(dir, 'none'), sys.RENAME_EXCHANGE) })
      assert.ok(existsSync(join(dir, 'a')))
    },
  },
  {
    name: 'RENAME_WHITEOUT leaves a character device 0:0',
    cites: 'renameat2(2), RENAME_WHITEOUT',
    needs: ['root', 'rename_whiteout'],
    run(dir, sys) {
      writeFileSync(join(dir, 'a'), 'A')
      sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_WHITEOUT)
      assert.equal(readFileSync(join(dir, 'b'), 'utf8'), 'A')
      assert.ok(lstat(join(dir, 'a')).isCharacterDevice())
      assert.equal(lstat(join(dir, 'a')).rdev, 0n)
    },
  },
  {
    name: 'a whiteout belongs to who renames',
    cites: 'renameat2(2), RENAME_WHITEOUT: it makes a file, so as mknod(2) does',
    needs: ['root', 'rename_whiteout'],
    run(dir, sys) {
      sys.as(sys.alice, () => {
        touch(join(dir, 'a'))
        sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_WHITEOUT)
      })
      assert.equal(lstat(join(dir, 'a')).uid, BigInt(sys.alice.uid))
      assert.equal(lstat(join(dir, 'a')).gid, BigInt(sys.alice.gid))
    },
  },
  {
    name: 'flags that exclude each other and unknown ones are EINVAL',
    cites: 'renameat2(2), EINVAL',
    run(dir, sys) {
      touch(join(dir, 'a'))
      touch(join(dir, 'b'))
      fails('EINVAL', () => { sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_NOREPLACE | sys.RENAME_EXCHANGE) })
      fails('EINVAL', () => { sys.rename2(join(dir, 'a'), join(dir, 'b'), sys.RENAME_EXCHANGE | sys.RENAME_WHITEOUT) })
      fails('EINVAL', () => { sys.rename2(join(dir, 'a'), join(dir, 'b'), 0x100) })
    },
  },
])
