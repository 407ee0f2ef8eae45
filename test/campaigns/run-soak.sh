#!/bin/bash
# The long campaigns, one after the other: npm run soak [-- PART...]
#
#   fuzz      hostile devices, backends and drivers, in memory          15 minutes
#   faults    each system call of lib/sys fails, at many of its uses    25 minutes
#   deaths    the bridge killed at random moments                        5 minutes
#   reconnect backends killed under on_disconnect=wait                   3 minutes
#   supervise the process that serves killed, with a supervisor          4 minutes
#   soak      mounts that come, go and break under load                 30 minutes
#   load      2,000 open files, 256 threads, caches dropped             30 minutes
#   inodes    very many inodes                                           5 minutes
#   differential  the same calls on a mount and on a plain directory    10 minutes
#
# Each prints its seed, its counts and what it found. Exit code 1 when any found something.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -e dist/test/campaigns/fuzz.js ] || npm run --silent build || exit 1
export UV_THREADPOOL_SIZE=32
campaigns=dist/test/campaigns
failed=()
part() { echo "soak: $*"; "$@" || failed+=("$*"); }
parts=("$@")
[ $# -gt 0 ] || parts=(fuzz faults deaths reconnect supervise soak load inodes differential)
for name in "${parts[@]}"; do
  case $name in
    fuzz)
      part node $campaigns/fuzz.js device --count=10000000
      part node $campaigns/fuzz.js client --count=1000000
      part node $campaigns/fuzz.js notifications --count=1000000
      part node $campaigns/fuzz.js vhost-user --count=1000000
      part node $campaigns/fuzz.js driver --count=1000000
      ;;
    faults)
      part node $campaigns/faults.js --peer=emulated
      part node $campaigns/faults.js --peer=own
      ;;
    deaths) part node $campaigns/deaths.js ;;
    reconnect)
      part node $campaigns/reconnect.js --kills 50
      part node $campaigns/reconnect.js --kills 50 --seed 2 --peer virtiofsd-c
      part node $campaigns/reconnect.js --kills 50 --seed 3 --writeback
      ;;
    supervise)
      part node $campaigns/supervise.js --kills 50
      part node $campaigns/supervise.js --kills 50 --seed 2 --device own
      part node $campaigns/supervise.js --kills 50 --seed 3 --device socket
      part node $campaigns/supervise.js --kills 50 --seed 4 --writeback
      ;;
    soak) part node $campaigns/soak.js ;;
    load) part node $campaigns/load.js ;;
    inodes) part node $campaigns/inodes.js ;;
    differential) part node dist/test/differential/campaign.js ;;
    *) echo "soak: no part $name"; exit 1 ;;
  esac
done
[ ${#failed[@]} = 0 ] || printf 'soak: FAILED: %s\n' "${failed[@]}"
[ ${#failed[@]} = 0 ]
