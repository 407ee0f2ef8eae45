/** native-notes/port-map.md says what every function of the kernel's drivers became, and every remark of their reviewers: all of it exists. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { REASONS } from '../kernel/linux-traces.js'
import { packageRoot } from '../support/vhost-user-session.js'

/** Functions of fs/fuse/virtio_fs.c (Linux 5.4). */
const VIRTIO_FS = `
  vq_to_fsvq vq_to_fpq release_virtio_fs_obj virtio_fs_put virtio_fs_fiq_release virtio_fs_drain_queue drain_hiprio_queued_reqs
  virtio_fs_drain_all_queues virtio_fs_start_all_queues virtio_fs_add_instance virtio_fs_find_instance virtio_fs_free_devs virtio_fs_read_tag
  virtio_fs_hiprio_done_work virtio_fs_request_dispatch_work virtio_fs_hiprio_dispatch_work copy_args_to_argbuf copy_args_from_argbuf
  virtio_fs_requests_done_work virtio_fs_vq_done virtio_fs_setup_vqs virtio_fs_cleanup_vqs virtio_fs_probe virtio_fs_stop_all_queues
  virtio_fs_remove virtio_fs_freeze virtio_fs_restore virtio_fs_wake_forget_and_unlock virtio_fs_wake_interrupt_and_unlock sg_count_fuse_req
  sg_init_fuse_pages sg_init_fuse_args virtio_fs_enqueue_req virtio_fs_wake_pending_and_unlock virtio_fs_fill_super virtio_kill_sb
  virtio_fs_test_super virtio_fs_set_super virtio_fs_get_tree virtio_fs_init_fs_context virtio_fs_init virtio_fs_exit`

/** Functions of fs/fuse/dev.c (2005). */
const DEV = `
  fuse_get_conn fuse_request_init fuse_request_alloc fuse_request_free block_sigs restore_sigs fuse_reset_request __fuse_get_request
  __fuse_put_request do_get_request fuse_get_request fuse_get_request_nonint fuse_putback_request fuse_put_request fuse_release_background
  request_end background_request request_wait_answer_nonint request_wait_answer len_args queue_request request_send_wait request_send
  request_send_nonint request_send_nowait request_send_noreply request_send_background fuse_send_init lock_request unlock_request
  fuse_copy_init fuse_copy_finish fuse_copy_fill fuse_copy_do fuse_copy_page fuse_copy_pages fuse_copy_one fuse_copy_args request_wait
  fuse_dev_readv fuse_dev_read request_find copy_out_args fuse_dev_writev fuse_dev_write fuse_dev_poll end_requests fuse_dev_release
  fuse_dev_init fuse_dev_cleanup`

/** A word or two of each remark of the reviews, as their rows begin. */
const REMARKS = [
  'v6: handling a full queue by a timer', 'v6: a MAINTAINERS entry', 'v6: TODO use completion instead of timeout (draining)',
  'v6: TODO use completion instead of timeout (submitting)', 'v6: TODO verify that the server', 'v6: TODO vq affinity', 'v6: TODO multiqueue',
  'v6: TODO save and restore', 'v6: TODO interrupts',
  'v4: what is with all of the TODOs', 'v4: keep names somewhere separate', 'v4: structures are native endian', 'v4: add_instance is O(N)',
  'v4: free_devs, TODO lock', 'v4: TODO quiesce', 'v4: a list_head is passed', 'v4: add_outbuf', 'v4: why GFP_ATOMIC', 'v4: requeue after some buffers',
  'v4: what is the notifications vq', 'v4: freeze and restore', 'v4: TODO validate config_get', 'v4: code duplicated', 'v4: interrupt, TODO',
  'v4: TODO handle full virtqueue', 'v4: TODO check for FR_INTERRUPTED', 'v4: again, why not respond to completion', 'v4: same thing here',
  'v4: fill_super, TODO lock', 'v4: TODO take fuse_mutex',
]

const root = packageRoot()
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

interface Row { theirs: string, ours: string, differs: string, test: string }

const cells = read('native-notes/port-map.md').split('\n').filter(line => line.startsWith('| ') && !line.startsWith('| theirs ')).map(line => line.slice(1, -1).split('|').map(cell => cell.trim()))
const rows: Row[] = cells.map(([theirs, ours, differs, test]) => ({ theirs: theirs!, ours: ours!, differs: differs!, test: test! }))

/** Whether a file declares a name, or a class in it a member. */
function declares(text: string, name: string): boolean {
  const [owner, member] = name.split('.') as [string, string?]
  const declaration = new RegExp(`^(export )?(default )?(abstract )?(async )?(const enum|class|function\\*?|const|let|interface|type|enum) ${owner}\\b`, 'm').exec(text)
  if (!declaration || member === undefined) return declaration !== null
  // a class at the top of a file ends with a brace in the first column
  const body = text.slice(declaration.index, text.indexOf('\n}', declaration.index))
  return new RegExp(`^  (readonly |static |async |get |set |override )*${member.replace('#', '\\#')}\\b[\\w<>, ]*[?!]?\\s*[(:=]`, 'm').test(body)
    || new RegExp(`^    (readonly |private |public )+${member}:`, 'm').test(body)
}

/** Whether a test or a check has this in its title. */
function titled(text: string, title: string): boolean {
  return text.split('\n').some(line => {
    const at = line.indexOf(title)
    return at > 0 && /[`'][^`']*$/.test(line.slice(0, at)) && /\bt\.\w+\(|'\)$/.test(line)
  })
}

t.test('the map has four cells in every row, and none is empty', async t => {
  t.ok(rows.length > 100)
  for (const [i, row] of rows.entries()) {
    if (cells[i]!.length !== 4 || cells[i]!.includes('')) t.fail(`${row.theirs}: ${cells[i]!.length} cells`)
  }
})

t.test('every function and every remark has one row', async t => {
  const named = rows.map(row => row.theirs)
  const functions = [...VIRTIO_FS.split(/\s+/), ...DEV.split(/\s+/)].filter(name => name !== '')
  t.equal(functions.length, 42 + 50)
  t.strictSame(functions.filter(name => named.filter(theirs => theirs === name).length !== 1), [])
  t.strictSame(REMARKS.filter(start => named.filter(theirs => theirs.startsWith(start)).length !== 1), [])
  t.strictSame(named.filter(theirs => !functions.includes(theirs) && !REMARKS.some(start => theirs.startsWith(start))), [], 'and there is no other')
})

t.test('every name, file and test of the map exists', async t => {
  for (const row of rows) {
    const ours = [...row.ours.matchAll(/`([^`]+)` \(([^)]+)\)/g)]
    if (ours.length === 0 && row.ours !== 'none') t.fail(`${row.theirs}: nothing of ours is named`)
    for (const [, name, file] of ours) {
      if (!existsSync(join(root, file!))) t.fail(`${row.theirs}: there is no ${file}`)
      else if (!declares(read(file!), name!)) t.fail(`${row.theirs}: ${file} does not declare ${name}`)
    }
    const tests = [...row.test.matchAll(/`([^`]+)` “([^”]+)”/g)]
    if (tests.length === 0) t.fail(`${row.theirs}: no test is named`)
    for (const [, file, title] of tests) {
      if (!existsSync(join(root, file!))) t.fail(`${row.theirs}: there is no ${file}`)
      else if (!titled(read(file!), title!)) t.fail(`${row.theirs}: ${file} has no test “${title}”`)
    }
  }
  t.pass(`${rows.length} rows`)
})

t.test('the notes say why traces differ from those of Linux', async t => {
  const notes = read('native-notes/linux-traces.md')
  t.strictSame(Object.keys(REASONS).filter(reason => !notes.includes(`| \`${reason}\` |`)), [])
})

t.test('what the check itself finds', async t => {
  const text = 'export class A {\n  readonly b: string\n  async c(): Promise<void> {}\n  #d<T>(): void {}\n}\nconst e = 1\nexport class F {\n  g = 1\n}\n'
  for (const name of ['A', 'A.b', 'A.c', 'A.#d', 'e', 'F.g']) t.ok(declares(text, name), name)
  t.ok(titled("t.test('one, two', async t => {", 'two'))
  t.ok(titled("  t.equal(a, b, 'three')", 'three'))
  t.notOk(titled('const two = 2', 'two'))
  for (const name of ['B', 'A.e', 'A.g', 'F.b', 'A.cc', 'g']) t.notOk(declares(text, name), name)
})
