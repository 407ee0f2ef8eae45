/** A device moves to another backend, which fails at the last moment. */
import t from 'tap'
import { planMemory } from '../../lib/driver/memory-plan.js'
import { SessionMemory } from '../../lib/driver/session-memory.js'
import { VhostUserTransport } from '../../lib/driver/vhost-user-transport.js'
import { close } from '../../lib/sys/io.js'
import { VhostUserConnection } from '../../lib/vhost-user/connection.js'
import { VhostUserFrontend } from '../../lib/vhost-user/frontend.js'
import { VhostUserRequest as R } from '../../lib/vhost-user/message.js'
import { VhostUserBackend, type BackendOptions } from '../support/vhost-user-backend.js'

function start(options: BackendOptions): { backend: VhostUserBackend, frontend: VhostUserFrontend } {
  // an empty state
  const { backend, fd } = VhostUserBackend.pair({ takeStateFd: (fd: number): undefined => { close(fd) }, ...options })
  return { backend, frontend: new VhostUserFrontend(new VhostUserConnection(fd, 'a backend')) }
}

t.test('the old backend gets its rings back when the new one has none any more', async t => {
  const next = start({ faults: { [R.SET_VRING_ENABLE]: answer => ({ ...answer!, payload: Buffer.alloc(8, 1) }) } })
  /** Rings that the new backend is told to leave, when the old one is told of its kicks. */
  const left: number[] = []
  const old = start({ seen: message => {
    if (message.request === R.SET_VRING_KICK && next.backend.names.includes('SET_OWNER')) left.push(next.backend.names.filter(name => name === 'GET_VRING_BASE').length)
  } })
  const plan = planMemory({ queues: 1, queueSize: 16, indirectDesc: true, largeBuffers: 2 })
  const memory = new SessionMemory(plan.lengthBytes)
  const transport = await VhostUserTransport.probe(old.frontend, 'tag')
  try {
    await transport.start({ memfd: memory.memfd, address: memory.address, plan, wakeFds: [], sleepFlags: new SharedArrayBuffer(4), windowFd: -1 })
    const replacement = await transport.prepareFrontend(next.frontend)
    await t.rejects(replacement.move(), { message: /SET_VRING_ENABLE/ })
    t.equal(next.backend.names.filter(name => name === 'SET_VRING_KICK').length, 2, 'it had both rings')
    t.same(left, [2, 2], 'it would take kicks that are the old one\'s: they come by the same eventfds')
    t.equal(old.backend.names.filter(name => name === 'SET_VRING_ENABLE').length, 2 + 2 + 2, 'on, off, on')
    await replacement.discard()
    await transport.stop(false)
    t.same([...old.backend.complaints, ...next.backend.complaints], [])
  } finally {
    await transport.close()
    await Promise.all([old.backend.done, next.backend.done])
    memory.free()
  }
})
