/** What one look of the doctor found. */

export interface Finding {
  /** Short name of what was looked at. */
  check: string
  /**
   * `ok`: as it should be. `note`: something that is not needed for a mount is not there.
   * `warning`: mounts work, but something is not well. `problem`: mounting does not work.
   */
  state: 'ok' | 'note' | 'warning' | 'problem'
  found: string
  /** What to do about it, or ''. */
  advice: string
}

export function ok(check: string, found: string): Finding {
  return { check, state: 'ok', found, advice: '' }
}

export function finding(check: string, state: Finding['state'], found: string, advice: string): Finding {
  return { check, state, found, advice }
}
