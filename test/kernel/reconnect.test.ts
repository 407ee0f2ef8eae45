/** A backend that dies and comes back, with on_disconnect=wait: nobody notices. */
import t from 'tap'
import { BACKENDS, missing, noProgram, peerPath } from '../support/peers.js'
import { withMount } from '../support/mounts.js'
import { ownBackend, prepareLoad, underKills } from '../support/reconnect-load.js'

for (const peer of BACKENDS) {
  t.test(`${peer} is killed five times under readers, writers and git`, { skip: missing(peer) || noProgram('git') }, async t => {
    const options = ['backend=virtiofsd', `virtiofsd=${peerPath(peer)}`, 'on_disconnect=wait']
    await withMount(t, { peer: 'emulated', options, files: prepareLoad, rough: true, timeoutMs: 120_000 }, async live => {
      const { failures, ...figures } = await underKills(live, 5, 1, () => ownBackend(live))
      t.comment(JSON.stringify(figures))
      t.strictSame(failures, [])
      for (const [kind, done] of Object.entries(figures.done)) t.ok(done > 2, `${kind}: ${done} rounds`)
      t.ok(figures.clones > 0, 'git clone')
      t.equal(await live.unmount(), 0, 'unmounted, and the bridge ended well')
      t.match(live.bridge.stderr, /the backend closed its socket; operations wait until it is back\n.*the backend is back\n/)
      t.equal(live.trace().filter(({ event }) => event === 'lost').length, figures.awayMs.length)
    })
  })
}
