/** O_APPEND and RWF_APPEND. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { group } from './check.js'

export const append = group('append', [
  {
    name: 'a write goes to the end, whatever the offset',
    cites: 'POSIX write(): "If the O_APPEND flag … is set, the file offset shall be set to the end of the file prior to each write"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR | sys.O_APPEND), fd => {
        sys.lseek(fd, 0, sys.SEEK_SET)
        sys.write(fd, 'def')
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 6n)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abcdef')
    },
  },
  {
    name: 'two descriptors that append overwrite nothing',
    cites: 'open(2), O_APPEND: "performed as a single atomic step"',
    run(dir, sys) {
      const flags = sys.O_CREAT | sys.O_WRONLY | sys.O_APPEND
      sys.withFd(sys.open(join(dir, 'f'), flags), one => {
        sys.withFd(sys.open(join(dir, 'f'), flags), two => {
          for (let i = 0; i < 20; i++) {
            sys.write(one, `a${i};`)
            sys.write(two, `b${i};`)
          }
        })
      })
      const expected = Array.from({ length: 20 }, (_, i) => `a${i};b${i};`).join('')
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), expected)
    },
  },
  {
    name: 'pwrite on an appending descriptor appends',
    cites: 'pwrite(2), BUGS: "if a file is opened with O_APPEND, on Linux, pwrite() appends data"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_WRONLY | sys.O_APPEND), fd => { sys.pwrite(fd, 'def', 0) })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abcdef')
    },
  },
  {
    name: 'after a truncation the next write goes to the new end',
    cites: 'POSIX write(), O_APPEND',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abcdef')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR | sys.O_APPEND), fd => {
        sys.write(fd, 'ghi')
        sys.ftruncate(fd, 2)
        sys.write(fd, 'X')
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'abX')
    },
  },
  {
    name: 'F_SETFL sets and clears O_APPEND of an open file',
    cites: 'POSIX fcntl(), F_SETFL',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        sys.fcntl(fd, sys.F_SETFL, sys.O_APPEND)
        sys.pwrite(fd, 'def', 0)
        sys.fcntl(fd, sys.F_SETFL, 0)
        sys.pwrite(fd, 'X', 0)
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'Xbcdef')
    },
  },
  {
    name: 'RWF_APPEND appends once, without moving the offset of a given one',
    cites: 'pwritev2(2), RWF_APPEND',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR), fd => {
        assert.equal(sys.pwritev2(fd, ['def'], 0, sys.RWF_APPEND), 3)
        assert.equal(sys.lseek(fd, 0, sys.SEEK_CUR), 0n)
        sys.write(fd, 'X')
      })
      assert.equal(readFileSync(join(dir, 'f'), 'utf8'), 'Xbcdef')
    },
  },
  {
    name: 'an appending descriptor reads from where it is',
    cites: 'POSIX open(), O_APPEND: sets the offset "prior to each write"',
    run(dir, sys) {
      writeFileSync(join(dir, 'f'), 'abc')
      sys.withFd(sys.open(join(dir, 'f'), sys.O_RDWR | sys.O_APPEND), fd => {
        assert.equal(sys.read(fd, 2).toString(), 'ab')
        sys.write(fd, 'def')
        assert.equal(sys.read(fd, 10).length, 0)
      })
    },
  },
])
