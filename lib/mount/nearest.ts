/** The name that somebody meant who mistyped it. */

/** How many letters are wrong, missing, too many or swapped with their neighbour (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const other = a[i - 1] === b[j - 1] ? 0 : 1
      row[j] = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + other)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j]!, before[j - 2]! + 1)
    }
    before = last
    last = row
  }
  return last[b.length]!
}

/** Case, spaces around it, and how words are joined make no other name. */
function plain(name: string): string {
  return name.trim().toLowerCase().replaceAll('-', '_')
}

/** @returns undefined when none is near enough: one mistake in a short name, two in a long one */
export function nearest(typed: string, names: Iterable<string>): string | undefined {
  const wanted = plain(typed)
  let best: string | undefined
  let least = wanted.length < 4 ? 1 : wanted.length < 8 ? 2 : 3
  for (const name of names) {
    const found = distance(wanted, plain(name))
    if (found < least) [best, least] = [name, found]
  }
  return best
}
