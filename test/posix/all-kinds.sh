#!/bin/bash
# Runs the table of checks on every kind of mount, also those that npm test leaves out, or on those
# whose name has a text:
#
#   bash test/posix/all-kinds.sh [TEXT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -d dist ] || npm run --silent build
POSIX_KINDS=${1-} timeout --kill-after=10 2400 npx --no-install tap run --reporter=terse dist/test/posix/posix.test.js
