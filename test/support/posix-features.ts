/**
 * Features of a file system, found by trying. Probed on the directory that really holds the files:
 * what a mount of it lacks is a failure or a listed exception, never a reason to skip.
 */
import { closeSync, constants, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sys } from './posix-sys.js'

function works(probe: () => unknown): boolean {
  try {
    return probe() !== false
  } catch {
    return false
  }
}

function isRoot(): boolean {
  return process.geteuid!() === 0
}

/** Gives the probe a file of 16 KiB that is open. */
function onFile(dir: string, name: string, flags: number, use: (fd: number) => unknown): unknown {
  const path = join(dir, name)
  writeFileSync(path, Buffer.alloc(16384, 1))
  return sys.withFd(sys.open(path, flags), use)
}

const probes = {
  root: () => isRoot(),
  xattr: dir => { sys.setxattr(dir, 'user.probe', 'x') },
  trusted_xattr: dir => { sys.setxattr(dir, 'trusted.probe', 'x') },
  security_xattr: dir => { sys.setxattr(dir, 'security.probe', 'x') },
  acl: dir => { sys.setxattr(dir, sys.ACL_ACCESS, sys.encodeAcl(['u::rwx', 'u:1:r--', 'g::r-x', 'm::r-x', 'o::---'])) },
  o_tmpfile: dir => { sys.close(sys.open(dir, sys.O_TMPFILE | sys.O_RDWR)) },
  o_direct: dir => onFile(dir, 'direct', sys.O_RDWR | sys.O_DIRECT, fd => sys.pread(fd, 4096, 0).length === 4096),
  rename_exchange: dir => {
    writeFileSync(join(dir, 'x1'), '')
    writeFileSync(join(dir, 'x2'), '')
    sys.rename2(join(dir, 'x1'), join(dir, 'x2'), sys.RENAME_EXCHANGE)
  },
  rename_whiteout: dir => {
    writeFileSync(join(dir, 'w1'), '')
    sys.rename2(join(dir, 'w1'), join(dir, 'w2'), sys.RENAME_WHITEOUT)
  },
  seek_hole: dir => onFile(dir, 'hole', sys.O_RDWR, fd => {
    sys.ftruncate(fd, 1 << 20)
    return sys.lseek(fd, 0, sys.SEEK_HOLE) === 16384n
  }),
  fallocate: dir => onFile(dir, 'allocate', sys.O_RDWR, fd => { sys.fallocate(fd, 0, 0, 65536) }),
  punch_hole: dir => onFile(dir, 'punch', sys.O_RDWR, fd => { sys.fallocate(fd, sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE, 0, 4096) }),
  zero_range: dir => onFile(dir, 'zero', sys.O_RDWR, fd => { sys.fallocate(fd, sys.FALLOC_FL_ZERO_RANGE, 0, 4096) }),
  btime: dir => (sys.statx(dir, sys.STATX_BTIME).mask & sys.STATX_BTIME) !== 0,
  device_nodes: dir => {
    sys.mknod(join(dir, 'null'), sys.S_IFCHR | 0o666, 0x103)
    closeSync(openSync(join(dir, 'null'), constants.O_WRONLY))
  },
  exec: dir => {
    writeFileSync(join(dir, 'true'), '#!/bin/sh\n', { mode: 0o755 })
    sys.access(join(dir, 'true'), constants.X_OK)
  },
  /** Reading a file marks its access time, at least when that is older than the last change. */
  atime: dir => onFile(dir, 'read', sys.O_RDONLY, fd => {
    sys.futimens(fd, { sec: 1, nsec: 0 }, { sec: 2, nsec: 0 })
    sys.read(fd, 1)
    return statSync(join(dir, 'read')).atimeMs > 1000
  }),
} satisfies Record<string, (dir: string) => unknown>

export type Feature = keyof typeof probes

/** The features of the file system of a directory. */
export function probeFeatures(directory: string): Set<Feature> {
  const dir = mkdtempSync(join(directory, '.probe-'))
  try {
    return new Set((Object.keys(probes) as Feature[]).filter(name => works(() => probes[name](dir))))
  } finally {
    rmSync(dir, { recursive: true })
  }
}
