#!/bin/bash
# Runs the side-by-side benchmarks; the options are those of bench/main.ts (see bench/README.md).
# Builds first, and provides the peers that are compared with. Needs root and /dev/fuse.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The table is all of standard output: everything before it goes to standard error.
{
  [ -d node_modules ] || npm ci
  npm run --silent build
  bash test/support/peers.sh --bench
} >&2
exec node dist/bench/main.js "$@"
