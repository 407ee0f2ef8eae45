/** Rows of text in columns. */

/** A name that somebody else has chosen, without control characters: as findmnt(8) shows it. */
export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, character => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** @param cells without styles */
export function columns(cells: readonly (readonly string[])[]): string {
  const rows = cells.map(row => row.map(printable))
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map(row => row[i]!.length))) ?? []
  return rows.map(row => row.map((cell, i) => i === row.length - 1 ? cell : cell.padEnd(widths[i]!)).join('  ')).join('\n')
}

/** Seconds as `3d04h`, `2h05m`, `7m12s`, `12s`. */
export function duration(seconds: number): string {
  const units: [string, number][] = [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]]
  const first = units.findIndex(([, size]) => seconds >= size)
  if (first < 0) return '0s'
  const [name, size] = units[first]!
  const rest = units[first + 1]
  return `${Math.floor(seconds / size)}${name}${rest ? `${String(Math.floor(seconds % size / rest[1])).padStart(2, '0')}${rest[0]}` : ''}`
}

/** Bytes as `1.5 MiB`. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024
    unit++
  }
  return `${unit === 0 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`
}
