/** Differences that were bugs, as the fuzzer made them short. */
import type { Op } from './operation.js'

export interface Case {
  name: string
  script: readonly Op[]
}

export const cases: readonly Case[] = [
  {
    name: 'fallocate by root leaves suid',
    script: [
      ['create', 2, '.hidden', 0o6157],
      ['fallocate', 2, 3, 36864, 36719],
      ['fstat', 2],
    ],
  },
  {
    name: 'chown with no ids clears suid',
    script: [
      ['create', 1, 'g', 0o666],
      ['fchmod', 1, 0o4454],
      ['fchown', 1, 0xffff_ffff, 0xffff_ffff],
      ['fstat', 1],
    ],
  },
  {
    name: 'truncate that does not change the size leaves mtime',
    script: [
      ['create', 3, 'g', 0o755],
      ['futimens', 3, -1, 821444495, 1234567890, 948207870],
      ['truncate', 'g', 0],
      ['stat', 'g', 0, 4095],
    ],
  },
  {
    name: 'a whiteout belongs to who renames',
    script: [
      ['as', 1],
      ['create', 0, 'a', 0o600],
      ['rename2', 'a', 'b', 5],
      ['stat', 'a', 256, 2047],
    ],
  },
]
