/** The doctor's look at the system: kernel, devices, programs, limits. Nothing is changed. */
import { execFile } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { controlDir } from '../lib/control/control-dir.js'
import { errorLine } from '../lib/errors.js'
import { allVirtiofsds, programs } from '../lib/mount/find-virtiofsd.js'
import { type Finding, finding, ok } from './doctor-report.js'
import { helperState } from './install-command.js'

const CAP_SYS_ADMIN = 21n
const FUSE_MAJOR_MINOR = (10 << 8) | 229
/** The emulated device holds a descriptor for each file that the kernel knows. */
const FEW_DESCRIPTORS = 16_384
const VERSION_TIMEOUT_MS = 5000
/** Of sun_path in struct sockaddr_un, with its end. */
const SOCKET_PATH_BYTES = 108

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** May this process call mount(2)? As root of a user namespace too. */
function mayMount(): boolean {
  const set = /^CapEff:\s*([0-9a-f]+)$/m.exec(read('/proc/self/status') ?? '')?.[1]
  return set !== undefined && ((BigInt(`0x${set}`) >> CAP_SYS_ADMIN) & 1n) === 1n
}

function isRoot(): boolean {
  return process.getuid!() === 0
}

function lookAtNode(): Finding {
  const found = `${process.version} on ${process.arch}`
  if (Number(process.versions.node.split('.')[0]) < 20) return finding('node', 'problem', found, 'install Node 20 or later')
  if (process.arch !== 'x64' && process.arch !== 'arm64') return finding('node', 'problem', found, 'only x86-64 and arm64 are supported')
  return ok('node', found)
}

async function lookAtKoffi(): Promise<Finding> {
  try {
    const { koffiVersion } = await import('../lib/sys/libc.js')
    return ok('system calls', `koffi ${koffiVersion}`)
  } catch (error) {
    return finding('system calls', 'problem', errorLine(error), 'koffi and glibc are needed: install again with npm, on a system with glibc')
  }
}

function lookAtKernel(): Finding {
  const version = release()
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const before = (a: number, b: number): boolean => major < a || (major === a && minor < b)
  const lacks = [...before(5, 17) ? ['cache=coherent (5.17)'] : [], ...before(6, 9) ? ['direct (6.9)'] : []]
  return lacks.length === 0 ? ok('kernel', version) : finding('kernel', 'note', version, `a newer one is needed for ${lacks.join(' and ')}`)
}

function lookAtDevFuse(): Finding {
  const check = '/dev/fuse'
  let fd
  try {
    fd = openSync('/dev/fuse', 'r+')
    const { rdev } = fstatSync(fd)
    if (rdev !== FUSE_MAJOR_MINOR) return finding(check, 'problem', 'something else than the FUSE device', 'mknod /dev/fuse c 10 229')
    return ok(check, 'can be opened')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const advice = code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO' ? 'modprobe fuse; in a container, start it with --device /dev/fuse'
      : code === 'EACCES' ? 'chmod 666 /dev/fuse, as root (udev does so)'
        : code === 'EPERM' ? 'this container may not use it: start it with --device /dev/fuse' : 'look at what is there'
    return finding(check, 'problem', code ?? errorLine(error), advice)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function lookAtRights(): Finding {
  const check = 'right to mount'
  if (mayMount()) return ok(check, isRoot() ? 'root' : 'CAP_SYS_ADMIN')
  if (isRoot()) return finding(check, 'problem', 'root without CAP_SYS_ADMIN', 'start the container with --cap-add SYS_ADMIN (and --security-opt apparmor=unconfined)')
  return ok(check, 'not root: by fusermount3')
}

function lookAtFusermount(): Finding {
  const check = 'fusermount3'
  // without it only who may mount can
  const needed = isRoot() ? 'note' : 'problem'
  const [path] = programs(check)
  if (path === undefined) return finding(check, needed, 'not there', 'to mount without root, and by mount(8) without our helpers: apt install fuse3')
  const stat = statSync(path)
  if (stat.uid !== 0 || (stat.mode & 0o4000) === 0) return finding(check, needed, `${path} is not setuid root`, `chown root ${path} && chmod 4755 ${path}`)
  return ok(check, path)
}

function lookAtFuseConf(): Finding {
  const check = 'user_allow_other'
  const set = /^\s*user_allow_other\s*$/m.test(read('/etc/fuse.conf') ?? '')
  if (set) return ok(check, 'set in /etc/fuse.conf')
  return finding(check, 'note', 'not set in /etc/fuse.conf', 'who is not root cannot use allow_other: add a line user_allow_other')
}

function lookAtHelpers(): Finding {
  const check = 'mount(8) helpers'
  switch (helperState()) {
    case 'here': return ok(check, 'in place')
    case 'elsewhere': return finding(check, 'warning', 'of another installation', 'virtiofs-bridge install, as root, to use this one')
    case 'missing': return finding(check, 'note', 'not installed', 'for mount -t virtiofs-bridge and /etc/fstab: virtiofs-bridge install, as root')
  }
}

async function versionOf(path: string): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(path, ['--version'], { timeout: VERSION_TIMEOUT_MS, killSignal: 'SIGKILL' })
    return (stdout || stderr).split('\n')[0]!.replace(/^virtiofsd(?: version)? /, '')
  } catch (error) {
    throw new Error(errorLine((error as { stderr?: string }).stderr?.trim().split('\n')[0] || error))
  }
}

async function lookAtVirtiofsds(): Promise<Finding[]> {
  const check = 'virtiofsd'
  const named = process.env['VIRTIOFSD']
  const paths = [...new Set([...named === undefined ? [] : [named], ...allVirtiofsds()])]
  if (paths.length === 0) return [finding(check, 'note', 'none found', 'for -o backend=virtiofsd: apt install virtiofsd (Debian 12: qemu-system-common), or -o virtiofsd=PATH')]
  return await Promise.all(paths.map(async path => {
    try {
      return ok(check, `${path}: ${await versionOf(path)}`)
    } catch (error) {
      return finding(check, 'warning', `${path}: ${errorLine(error)}`, path === named ? '$VIRTIOFSD names it: correct that' : 'it does not run: install it again')
    }
  }))
}

async function lookAtFuseNative(): Promise<Finding> {
  const check = 'fuse-native'
  try {
    const { loadAddon } = await import('../lib/fuse-native/addon.js')
    loadAddon()
    return ok(check, 'loads, with libfuse 2')
  } catch (error) {
    return finding(check, 'note', errorLine(error), 'only -o via=fuse-native needs it')
  }
}

function lookAtLimits(): Finding[] {
  const limits = read('/proc/self/limits') ?? ''
  const limit = (name: string): [soft: string, hard: string] => {
    const [, soft = '?', hard = '?'] = new RegExp(`^${name} +(\\S+) +(\\S+)`, 'm').exec(limits) ?? []
    return [soft, hard]
  }
  const [, files] = limit('Max open files')
  const locked = limit('Max locked memory')[0]
  const few = Number(files) < FEW_DESCRIPTORS
  return [
    few ? finding('open files', 'warning', `at most ${files}`, 'each file that is in use or known takes one: raise the hard limit (ulimit -Hn, LimitNOFILE=)') : ok('open files', `at most ${files}`),
    ok('locked memory', `${/^\d+$/.test(locked) ? `${Math.round(Number(locked) / 1024)} KiB` : locked}; nothing is locked here`),
  ]
}

function lookAtRuntimeDir(): Finding {
  const check = 'runtime directory'
  try {
    const directory = controlDir()
    if (Buffer.byteLength(join(directory, '1234567-0')) >= SOCKET_PATH_BYTES) return finding(check, 'warning', `${directory} is too long for a socket`, 'status, stats and trace will not work: choose a shorter XDG_RUNTIME_DIR')
    return ok(check, directory)
  } catch (error) {
    return finding(check, 'problem', errorLine(error), 'set XDG_RUNTIME_DIR to a directory of your own')
  }
}

function lookAtFusectl(): Finding {
  const check = 'fusectl'
  const path = '/sys/fs/fuse/connections'
  const type = (read('/proc/self/mountinfo') ?? '').split('\n').some(line => line.includes(` ${path} `))
  if (type) return ok(check, `mounted, ${readdirSync(path).length} FUSE connections`)
  return finding(check, 'note', 'not mounted', `to see and abort the connections of all FUSE mounts: mount -t fusectl none ${path}`)
}

function lookAtIoUring(): Finding {
  const check = 'FUSE over io_uring'
  const value = read('/sys/module/fuse/parameters/enable_uring')?.trim()
  if (value === undefined) return ok(check, 'this kernel does not have it; not needed')
  return ok(check, `${value === 'Y' ? 'on' : 'off'}; not used here`)
}

/** All of it, in an order in which one would mend things. */
export async function lookAtSystem(): Promise<Finding[]> {
  return [
    lookAtNode(), await lookAtKoffi(), lookAtKernel(), lookAtDevFuse(), lookAtRights(), lookAtFusermount(), lookAtFuseConf(), lookAtHelpers(),
    ...await lookAtVirtiofsds(), await lookAtFuseNative(), ...lookAtLimits(), lookAtRuntimeDir(), lookAtFusectl(), lookAtIoUring(),
  ]
}
