/** What the documentation says that there is. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './vhost-user-session.js'

/** The names in the first column of the table under a heading. */
export function documentedFields(heading: string): string[] {
  const section = readFileSync(join(packageRoot(), 'docs/output.md'), 'utf8').split(`\n## ${heading}\n`)[1]?.split(/^#/m)[0] ?? ''
  return [...section.matchAll(/^\| ((?:`\w+`(?:, )?)+) \|/gm)].flatMap(([, cell]) => [...cell!.matchAll(/`(\w+)`/g)].map(([, name]) => name!))
}
