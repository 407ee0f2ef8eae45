#!/bin/bash
# Runs the table of checks on every kind of mount, also those that npm test leaves out, or on those
# whose name has a text:
#
#   bash test/posix/all-kinds.sh [TEXT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -d dist ] || npm run --silent build
# what holds is not shown
POSIX_KINDS=${1-} timeout --kill-after=10 2400 node dist/test/support/run-files.js dist/test/posix/posix.test.js |
  grep -av '^ *\(ok \|# Subtest\|1\.\.\|$\)'
