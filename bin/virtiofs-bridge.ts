#!/usr/bin/env node
/**
 * The command. A mount in the background goes to the process that will serve it before anything else
 * is loaded here, for that takes as long as the mount itself; all the rest is in main.js.
 */
import { startDaemon } from './daemon.js'
import { endBy } from './exit-codes.js'
import { backgroundMount } from './plain-mount.js'

const plain = backgroundMount(process.argv[1]!, process.argv.slice(2))
if (plain) process.exitCode = await startDaemon(plain).catch(endBy)
else await import('./main.js')
