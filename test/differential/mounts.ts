/** What the fuzzer compares with a plain directory. */
import { existsSync } from 'node:fs'
import { peerPath } from '../support/peers.js'
import type { Abilities, Backing } from './generator.js'
import { virtiofsdLacks, virtiofsdUncachedLacks, writebackLacks } from './rules.js'

export interface MountKind {
  name: string
  backing: Backing
  /** For `-o`; none for a second plain directory, which tests the fuzzer itself. */
  options?: string
  /** What it is not asked for, and why: see rules.ts. */
  lacks?: Readonly<Record<string, string>>
}

const ALL = 'xattr,posix_acl'

function emulated(options: string, backing: Backing = 'tmpfs', lacks: NonNullable<MountKind['lacks']> = {}): MountKind {
  return { name: `emulated, ${options}${backing === 'ext4' ? ', on disk' : ''}`, backing, options: `${ALL},${options}`, lacks }
}

function virtiofsd(options: string, lacks: NonNullable<MountKind['lacks']>): MountKind[] {
  const path = peerPath('virtiofsd-rust')
  return existsSync(path) ? [{ name: `virtiofsd, ${options}`, backing: 'tmpfs', options: `${ALL},${options},backend=virtiofsd,virtiofsd=${path}`, lacks }] : []
}

export const plain: MountKind = { name: 'plain directory', backing: 'tmpfs' }

export const mountKinds: readonly MountKind[] = [
  emulated('cache=auto'),
  emulated('cache=auto,queues=4'),
  emulated('cache=always'),
  emulated('cache=always,queues=4'),
  emulated('cache=coherent'),
  emulated('cache=coherent,queues=4'),
  emulated('cache=metadata'),
  emulated('cache=never'),
  emulated('cache=never,queues=4'),
  emulated('cache=auto,writeback', 'tmpfs', writebackLacks),
  emulated('cache=always,writeback,queues=4', 'tmpfs', writebackLacks),
  emulated('cache=auto,allow_direct_io'),
  emulated('cache=auto,no_readdirplus'),
  emulated('cache=auto', 'ext4'),
  emulated('cache=always,writeback', 'ext4', writebackLacks),
  ...virtiofsd('cache=auto', virtiofsdLacks),
  ...virtiofsd('cache=never', virtiofsdUncachedLacks),
]

/** What a mount, and the file system below it, can be asked. */
export function abilitiesOf({ backing, options, lacks }: MountKind): Abilities {
  const names = options?.split(',')
  return {
    backing,
    xattrs: names === undefined || names.includes('xattr') || names.includes('posix_acl'),
    acls: names === undefined || names.includes('posix_acl'),
    writeback: names?.includes('writeback') ?? false,
    lacks: Object.keys(lacks ?? {}),
  }
}
