/** A command line without a shell: words, quotes and backslashes, and nothing else. */
import { UsageError } from '../errors.js'

/**
 * Splits at spaces that are not quoted. In single quotes everything stands for itself, in double
 * quotes and outside a backslash makes the next character do so. Variables, globs, pipes and all else
 * that a shell knows mean nothing here.
 *
 * @param what it is, for messages
 * @returns at least one word
 * @throws UsageError for a quote that does not end, or no word at all
 */
export function splitWords(text: string, what: string): string[] {
  const words: string[] = []
  let word: string | undefined
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!
    if (character === '\0') throw new UsageError(`${what}: a command contains no NUL`)
    if (/\s/.test(character)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (character === '\\') {
      if (++i === text.length) throw new UsageError(`${what}: a backslash at the end of "${text}"`)
      word = (word ?? '') + text[i]!
    } else if (character === '\'' || character === '"') {
      word ??= ''
      for (i++; i < text.length && text[i] !== character; i++) {
        if (character === '"' && text[i] === '\\' && i + 1 < text.length && '"\\'.includes(text[i + 1]!)) i++
        word += text[i]!
      }
      if (i === text.length) throw new UsageError(`${what}: a ${character} in "${text}" has no end`)
    } else {
      word = (word ?? '') + character
    }
  }
  if (word !== undefined) words.push(word)
  if (words.length === 0 || words[0] === '') throw new UsageError(`${what}: the command is empty`)
  return words
}

/** One word for a shell on another host. */
export function quoteForShell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll('\'', '\'\\\'\'')}'`
}
