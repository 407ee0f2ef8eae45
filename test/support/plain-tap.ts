/**
 * tap for tests that start many worker threads in their own process. tap's loaders are inherited by
 * each of them and take most of a second there, so such a test file runs itself again without them.
 */
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

/** Where the tests of a file go. */
export interface Tests {
  test(name: string, body: (t: Test) => Promise<void>): unknown
  test(name: string, extra: { skip: string | boolean }, body: (t: Test) => Promise<void>): unknown
}

/**
 * @param url of the test file
 * @returns tap; or, where the loaders are, something that ignores its tests: they have run elsewhere
 */
export async function plainTap(url: string): Promise<Tests> {
  if (!process.execArgv.some(argument => argument.startsWith('--import'))) return t as Tests
  const file = fileURLToPath(url)
  await t.spawn(process.execPath, ['--enable-source-maps', file], {}, 'without loaders')
  return { test: () => {} }
}
