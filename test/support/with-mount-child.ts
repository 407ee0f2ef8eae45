/** Mounts a directory for ever, says where, and ends as it is told: by process.exit, or not at all. */
import { withMount } from '../../lib/index.js'

const [source, way] = process.argv.slice(2)
await withMount(source!, async dir => {
  console.log(dir)
  if (way === 'exit') process.exit(3)
  await new Promise(resolve => setTimeout(resolve, 600_000))
})
