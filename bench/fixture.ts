/**
 * The tree that every peer serves: one directory on a tmpfs of our own. Peers share what is only
 * read; each writes to a directory of its own. Made on the tmpfs itself, not through a mount.
 *
 *   small      4 KiB           names/  hard links to a few inodes: many names, few descriptors
 *   big        256 MiB         git/    a repository of `treeFiles` files
 *   w/PEER/    work space      many/   10 directories of 10,000 files
 */
import { execFile } from 'node:child_process'
import { linkSync, mkdirSync, mkdtempSync, openSync, readFileSync, realpathSync, rmdirSync, writeFileSync, writeSync, closeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { BIG_BYTES, MANY_DIRECTORIES, MANY_FILES, manyDirectory, MIB, STAT_INODES, STAT_NAMES, statName } from './fixture-names.js'

const exec = promisify(execFile)

const TREE_FILES = 20_000
const FILES_PER_DIRECTORY = 100
/** Descriptors that a server needs for everything else while it holds one per inode of the tree. */
const SPARE_DESCRIPTORS = 3000

export interface Fixture {
  /** Everything of this run; the tmpfs is mounted here. */
  base: string
  source: string
  archive: string
  /** Files in the git tree and the archive: 20,000, or what the limit of descriptors allows. */
  treeFiles: number
}

/**
 * Makes the tree.
 * @param trees also what the rows over many files need
 * @param disposers takes what removes it
 * @param treeFiles files of the git tree and the archive
 */
export async function makeFixture(peers: string[], trees: boolean, disposers: (() => Promise<void>)[], treeFiles = affordableFiles()): Promise<Fixture> {
  const base = mkdtempSync(join(realpathSync(tmpdir()), 'virtiofs-bench-'))
  disposers.push(async () => rmdirSync(base))
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=4g,nr_inodes=0,mode=755', 'tmpfs', base])
  disposers.push(async () => void await exec('umount', ['-l', base]))
  const source = join(base, 'source')
  const fixture = { base, source, archive: join(base, 'tree.tar'), treeFiles }
  fill(source, peers)
  if (trees) await makeTrees(fixture)
  return fixture
}

/** Files of a tree that a server with a descriptor per inode can hold, up to 20,000. */
function affordableFiles(): number {
  const limit = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  if (limit === undefined || limit === 'unlimited') return TREE_FILES
  const directories = 1 + 1 / FILES_PER_DIRECTORY
  const affordable = Math.floor((Number(limit) - SPARE_DESCRIPTORS) / directories)
  return Math.min(TREE_FILES, Math.floor(affordable / 1000) * 1000)
}

function fill(source: string, peers: string[]): void {
  mkdirSync(join(source, 'w'), { recursive: true })
  for (const peer of peers) mkdirSync(join(source, 'w', peer))
  writeFileSync(join(source, 'small'), Buffer.alloc(4096, 'small'))
  const fd = openSync(join(source, 'big'), 'w')
  const block = Buffer.alloc(MIB, 'a block of the big file ')
  for (let at = 0; at < BIG_BYTES; at += MIB) writeSync(fd, block)
  closeSync(fd)
  mkdirSync(join(source, 'names'))
  for (let i = 0; i < STAT_NAMES; i++) {
    if (i < STAT_INODES) writeFileSync(join(source, statName(i)), '')
    else linkSync(join(source, statName(i % STAT_INODES)), join(source, statName(i)))
  }
}

async function makeTrees({ source, archive, treeFiles }: Fixture): Promise<void> {
  const git = join(source, 'git')
  for (let i = 0; i < treeFiles; i++) {
    const directory = join(git, `d${Math.floor(i / FILES_PER_DIRECTORY)}`)
    if (i % FILES_PER_DIRECTORY === 0) mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `file${i}.txt`), `file ${i}\n`.repeat(20 + i % 180))
  }
  const run = (...args: string[]) => exec('git', ['-C', git, '-c', 'gc.auto=0', '-c', 'maintenance.auto=false', '-c', 'user.name=bench', '-c', 'user.email=bench@localhost', ...args])
  await run('init', '-q')
  // Not every peer shows the inode numbers and change times of the source: compare what all show.
  await run('config', 'core.checkStat', 'minimal')
  await run('config', 'core.trustctime', 'false')
  await run('add', '.')
  await run('commit', '-q', '-m', 'tree')
  await run('repack', '-a', '-d', '-q')
  // A second in which nothing changed: or git has to read every file of the commit's second again.
  await new Promise(resolve => setTimeout(resolve, 1100))
  await run('update-index', '--really-refresh')
  await exec('tar', ['-cf', archive, '--exclude=.git', '-C', git, '.'])
  for (let d = 0; d < MANY_DIRECTORIES; d++) {
    mkdirSync(join(source, manyDirectory(d)), { recursive: true })
    for (let i = 0; i < MANY_FILES; i++) writeFileSync(join(source, manyDirectory(d), `file${i}`), '')
  }
}
