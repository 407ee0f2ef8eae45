/** Mounts a file system with promises until it is unmounted: node serve-module.js MODULE DIR */
import { mount, serveDevice } from '../../lib/index.js'

const [module, mountpoint] = process.argv.slice(2) as [string, string]
const live = await mount({ source: serveDevice(module, { async: true }), mountpoint })
await live.closed
