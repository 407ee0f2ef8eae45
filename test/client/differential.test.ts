/** A connected file system answers as node:fs/promises on a plain directory does. */
import t from 'tap'
import { compareAll } from '../support/differential.js'
import { cases } from '../support/differential-cases.js'
import { CLIENT_PEERS, missingPeer } from '../support/client-peers.js'

for (const peer of CLIENT_PEERS) t.test(peer, { skip: missingPeer(peer) }, t => compareAll(t, peer, cases))
