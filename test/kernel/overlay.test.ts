/** README's recipe for a throw-away writable view: overlayfs on top of a mount. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MountNamespace } from '../support/mount-namespace.js'
import { BACKENDS, BRIDGE, missing, noProgram, peerPath } from '../support/peers.js'
import { packageRoot } from '../support/vhost-user-session.js'
import { inScene } from '../support/scene.js'

const skip = missing('emulated') || noProgram('nsenter') || noProgram('unshare')

/** The commands of README: those that make the view, and those that end it. */
function recipe(): { make: string[], end: string[] } {
  const section = readFileSync(join(packageRoot(), 'README.md'), 'utf8').split('\nA writable view that is thrown away')[1]!
  const commands = section.split('\n').filter(line => line.startsWith('    ')).slice(0, 6).map(line => line.trim().replace(/ +#.*/, ''))
  return { make: commands.slice(0, 4), end: commands.slice(4) }
}

for (const backend of ['emulated', ...BACKENDS] as const) {
  t.test(`${backend}: an overlay on top of a mount`, { skip: skip || (backend !== 'emulated' && missing(backend)) }, async t => {
    await inScene(async scene => {
      const { make, end } = recipe()
      t.match([make.join(), end.join()], [/virtiofs-bridge .*-t overlay/, /umount .*umount/])
      const view = join(scene.base, 'view')
      mkdirSync(join(scene.source, 'dir'))
      for (const name of ['kept', 'changed', 'removed', 'dir/inside']) writeFileSync(join(scene.source, name), `${name}\n`)
      const namespace = await MountNamespace.create()
      const options = backend === 'emulated' ? '' : `,backend=virtiofsd,virtiofsd=${peerPath(backend)}`
      const sh = async (script: string) => await namespace.try(['bash', '-ec', `virtiofs-bridge() { ${BRIDGE.map(word => `'${word}'`).join(' ')} "$@"; }\n${script}`], scene.env)
      const here = (command: string): string => command.replaceAll('/srv/shared', scene.source).replaceAll('/mnt/shared', scene.dir).replaceAll('/mnt/view', view).replace('-o ro', `-o ro${options}`)
      try {
        mkdirSync(view)
        const made = await sh(make.map(here).join('\n'))
        if (/overlay.*(Operation not permitted|Invalid argument|unknown filesystem)/i.test(made.stderr)) {
          return void t.pass('an overlay', { skip: `overlayfs on FUSE is refused here: ${made.stderr.trim()}` })
        }
        t.match(made, { exit: { code: 0 }, stderr: '' })
        const work = await sh(`cd '${view}/all'
          test "$(cat kept)" = kept
          echo new >made; echo more >>changed; rm removed; mv dir/inside dir/moved; mkdir dir/sub; chmod 600 kept
          cat changed; ls -1 . dir | tr '\\n' ' '`)
        t.match(work, { exit: { code: 0 }, stderr: '', stdout: 'changed\nmore\n.: changed dir kept made  dir: moved sub ' })
        const ended = await sh(end.map(here).join('\n'))
        t.match(ended, { exit: { code: 0 }, stderr: '' })
        t.strictSame(namespace.mounts().filter(({ mountpoint }) => mountpoint.startsWith(scene.base)), [], 'everything is unmounted')
        t.strictSame(['kept', 'changed', 'removed', 'dir/inside'].map(name => readFileSync(join(scene.source, name), 'utf8')), ['kept\n', 'changed\n', 'removed\n', 'dir/inside\n'], 'the source is as it was')
      } finally {
        for (const path of [`${view}/all`, view, scene.dir]) await namespace.try(['umount', '-l', path])
        await namespace.end()
      }
    })
  })
}
