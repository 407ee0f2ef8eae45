/** Mounts the moody file system until it is unmounted: node serve-moody.js DIR */
import { mount, serveDevice } from '../../lib/index.js'
import { Mood } from './moody-fs.js'

const counters = new SharedArrayBuffer(Mood.WORDS * 4)
const live = await mount({ source: serveDevice(new URL('./moody-fs.js', import.meta.url), { data: { counters } }), mountpoint: process.argv[2]! })
await live.closed
