/**
 * Makes the command's bundle, dist/command: one file for each process and thread, since loading some
 * hundred modules takes longer than all else that a mount does at its start (native-notes/performance.md).
 *
 * All files lie in one directory, so that a `new URL('./x.js', import.meta.url)` finds the file of
 * that name there, from whichever directory of the source it comes. Library users get dist/lib; what
 * only they can have (served file systems, faults on demand) has no file here.
 */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const PROCESSES = ['bin/virtiofs-bridge', 'bin/daemon-child', 'bin/served-child', 'lib/fuse-native/host-process']
/** What some of them load when they have started others, each in a file of its own. */
const LATE = ['bin/main', 'bin/serve-in-background', 'bin/serve-supervised']
const THREADS = [
  'lib/driver/worker-main', 'lib/driver/notifier-thread', 'lib/relay/near-thread', 'lib/relay/far-thread',
  'lib/device/pool-thread', 'lib/device/queue-thread-main', 'lib/device/passthrough/watch-thread',
]
/** What a thread may be told to load. */
const LOADED = ['lib/device/passthrough-handlers', 'lib/relay/near-device']
/** Whose text is in the bundle, and whose licence asks to be with it. */
const LICENCES = ['node_modules/debug/LICENSE', 'node_modules/ms/license.md']

const root = fileURLToPath(new URL('.', import.meta.url))

/** lib/device/load-module.ts for a bundle: modules of this package are in it. */
const loadFromBundle = {
  name: 'load-from-bundle',
  setup: ({ onLoad }) => onLoad({ filter: /\/lib\/device\/load-module\.ts$/ }, () => ({
    resolveDir: root,
    contents: `
      const here = new Map([${LOADED.map(path => `['${basename(path)}.js', () => import('./${path}.ts')]`).join(', ')}])
      export async function loadModule(url) {
        return await (here.get(url.slice(url.lastIndexOf('/') + 1))?.() ?? import(url))
      }`,
  })),
}

/** Packages that stay outside the bundle are loaded by the first module that needs them, and not before the bundle. */
const lateExternals = {
  name: 'late-externals',
  setup: ({ onLoad, onResolve }) => {
    onResolve({ filter: /^(koffi|yargs)$/ }, ({ path, namespace }) => namespace === 'late' ? { path, external: true } : { path, namespace: 'late' })
    onLoad({ filter: /.*/, namespace: 'late' }, ({ path }) => ({ contents: `module.exports = require('${path}')` }))
  },
}

await build({
  entryPoints: [...PROCESSES, ...LATE, ...THREADS].map(path => `${path}.ts`),
  entryNames: '[name]',
  outdir: 'dist/command',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'esm',
  external: [...LATE.map(path => `./${basename(path)}.js`), 'fuse-native', 'minimatch', 'supports-color'],
  // for `debug`, which is CommonJS, and the late externals
  banner: { js: 'import { createRequire as bundleRequire } from \'node:module\'; const require = bundleRequire(import.meta.url)' },
  footer: { js: LICENCES.map(path => `/*! ${path}\n${readFileSync(path, 'utf8')}*/`).join('\n') },
  plugins: [loadFromBundle, lateExternals],
  logLevel: 'warning',
})
