/** Mounts a file system in memory until it is unmounted: node dist/examples/mount-memfs.js DIR */
import { mount, serveDevice } from 'virtiofs-bridge'

const [mountpoint] = process.argv.slice(2)
if (mountpoint === undefined) throw new Error('usage: mount-memfs DIR')
const live = await mount({ source: serveDevice(new URL('./memfs.js', import.meta.url)), mountpoint })
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void live.unmount({ lazy: true }))
await live.closed
