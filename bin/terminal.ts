/** Colours, which are for terminals only; NO_COLOR turns them off. */

export function isTerminal(): boolean {
  return process.stdout.isTTY === true
}

function styled(start: number, end: number, text: string): string {
  return isTerminal() && process.stdout.hasColors() ? `\x1b[${start}m${text}\x1b[${end}m` : text
}

export function emphasis(text: string): string {
  return styled(1, 22, text)
}

export function alarm(text: string): string {
  return styled(31, 39, text)
}

export function assent(text: string): string {
  return styled(32, 39, text)
}
