/**
 * Rows over many files. A server holds a descriptor for each inode that the kernel remembers, and
 * the limit may be 20,000: so the kernel's names of the mount are dropped, untimed, before and
 * after, which also makes every tree cold, and the 100,000 files go in directories of 10,000.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { MANY_DIRECTORIES, MANY_FILES, manyDirectory } from './fixture-names.js'
import { forgetNames } from './load-caches.js'
import * as sys from './load-sys.js'
import { Clock, type Task } from './load-task.js'
import type { Measure } from './rows.js'

function command(file: string, args: string[], env: NodeJS.ProcessEnv = {}): string {
  const done = spawnSync(file, args, { encoding: 'utf8', env: { ...process.env, ...env } })
  if (done.error) throw done.error
  if (done.status !== 0) throw new Error(`${file} ${args.join(' ')}: ${done.stderr.trim().split('\n')[0]}`)
  return done.stdout
}

function git(task: Task): Measure {
  forgetNames(task)
  const clock = new Clock(task.servers)
  clock.start()
  const changed = command('git', ['-C', join(task.root, 'git'), 'status', '--porcelain'], {
    // no refreshed index is written, and the owner of the directory does not matter
    GIT_OPTIONAL_LOCKS: '0', GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*',
  })
  clock.stop()
  if (changed) throw new Error(`git status saw changes: ${changed.split('\n')[0]}`)
  forgetNames(task)
  return clock.measure(task.treeFiles)
}

function untar(task: Task): Measure {
  const directory = join(task.work, 'untar')
  forgetNames(task)
  mkdirSync(directory)
  const clock = new Clock(task.servers)
  try {
    clock.start()
    command('tar', ['-xf', task.archive, '-C', directory])
    clock.stop()
  } finally {
    forgetNames(task)
    rmSync(directory, { recursive: true })
  }
  return clock.measure(task.treeFiles)
}

function readdir(task: Task): Measure {
  const clock = new Clock(task.servers)
  const buffer = sys.alloc(4096)
  for (let i = 0; i < MANY_DIRECTORIES; i++) {
    const directory = join(task.root, manyDirectory(i))
    forgetNames(task)
    clock.start()
    for (const path of sys.cStrings(readdirSync(directory).map(name => `${directory}/${name}`))) {
      if (sys.stat(path, buffer) < 0) sys.fail('stat', directory)
    }
    clock.stop()
  }
  forgetNames(task)
  return clock.measure(MANY_DIRECTORIES * MANY_FILES)
}

export const treeRows: Record<string, (task: Task) => Measure> = { git, untar, readdir }
