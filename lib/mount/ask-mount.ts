/** Whether the process that serves a mount is there still. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** How long a mount may take to say that it is dead, in milliseconds. */
const ANSWER_TIMEOUT_MS = 1000

/**
 * Asks the mount itself, by a process that can be left behind when it hangs: a thread of ours could
 * not. Statfs, for attributes are cached: a dead mount would go on answering with them.
 */
export async function askMount(mountpoint: string): Promise<'dead' | 'silent' | 'answers'> {
  const child = spawn('stat', ['-f', '--', mountpoint], { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, LC_ALL: 'C' } })
  let said = ''
  child.stderr.on('data', chunk => { said += chunk })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>(resolve => { timer = setTimeout(() => resolve('late'), ANSWER_TIMEOUT_MS) })
  const ended = once(child, 'close').catch(() => {})
  const first = await Promise.race([ended, late])
  clearTimeout(timer)
  if (first === 'late') {
    child.kill('SIGKILL')
    child.stderr.destroy()
    child.unref()
    return 'silent'
  }
  return /not connected|connection abort/i.test(said) ? 'dead' : 'answers'
}
