/** All checks, under the name of their group and their own. */
import type { Check, Group } from './check.js'
import { acls } from './acls.js'
import { append } from './append.js'
import { chmodChown } from './chmod-chown.js'
import { copyFileRange, splicing } from './copies.js'
import { setgidDirectories, suidClearing, umasks } from './creation-modes.js'
import { directories } from './directories.js'
import { hardLinks } from './hard-links.js'
import { locks } from './locks.js'
import { directIo, mappings, sharedMappings } from './mappings.js'
import { concurrency, manyFiles, syncing } from './many.js'
import { names } from './names.js'
import { openFlags } from './open-flags.js'
import { permissions } from './permissions.js'
import { readWrite } from './read-write.js'
import { readingDirectories } from './readdir.js'
import { renames } from './rename.js'
import { rename2 } from './rename2.js'
import { fallocating, holes } from './space.js'
import { specialFiles } from './special-files.js'
import { fileStatistics, fileSystemStatistics } from './statistics.js'
import { symlinks } from './symlinks.js'
import { times } from './times.js'
import { tmpfiles } from './tmpfiles.js'
import { truncating } from './truncate.js'
import { unlinkOpen } from './unlink-open.js'
import { xattrs } from './xattrs.js'

const groups: readonly Group[] = [
  openFlags, readWrite, append, truncating, times, chmodChown, hardLinks, symlinks, renames, rename2, unlinkOpen,
  directories, readingDirectories, specialFiles, permissions,
  umasks, setgidDirectories, suidClearing, xattrs, acls, tmpfiles,
  fallocating, holes, copyFileRange, splicing, mappings, sharedMappings, directIo, locks,
  fileSystemStatistics, fileStatistics, names, manyFiles, concurrency, syncing,
]

export const table: readonly Check[] = groups.flatMap(({ noun, checks }) => checks.map(check => ({ ...check, name: `${noun}: ${check.name}` })))

const unique = new Set(table.map(check => check.name))
if (unique.size !== table.length) throw new Error('two checks have the same name')
