/** Names and sizes in the tree of bench/fixture.ts, for those who make it and those who use it. */

export const MIB = 1 << 20

/** The file `big`. */
export const BIG_BYTES = 256 * MIB

/** Names that the stat row uses up in one cell: hard links to a few inodes. */
export const STAT_NAMES = 60_000
export const STAT_INODES = 16

export function statName(i: number): string {
  return `names/n${i}`
}

/** Directories of the readdir row, and files in each. */
export const MANY_DIRECTORIES = 10
export const MANY_FILES = 10_000

/** Files in a directory of the growth plot; there are as many directories as it wants. */
export const GROWTH_FILES = 1000

export function growthDirectory(i: number): string {
  return `growth/${i}`
}

export function manyDirectory(i: number): string {
  return `many/${i}`
}
