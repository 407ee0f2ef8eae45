#!/bin/bash
# Installs what is missing, builds, and runs the tests.
#
#   npm test                      every suite
#   npm test -- unit protocol     these only: directories below test/
#
# In this order: npm ci, when node_modules is missing or older than package-lock.json, and
# npm run build; meanwhile, as root on Debian, test/support/peers.sh, which says what it
# installs; every test file of the suites, two at a time where they may (run-files.ts);
# a look at what the tests left behind.
#
# Without root or without /dev/fuse the tests that mount skip, and say so.
# The last line is "N passed, N failed, N skipped": tap's own counts, and one failure
# more for anything left behind. Exit code 1 if anything failed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C.UTF-8
say() { echo "test: $*"; }
# Ends the run before any test could be run.
give_up() {
  say "$1" >&2
  wait
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
}

suites=("$@")
if [ ${#suites[@]} = 0 ]; then
  for directory in test/*/; do
    compgen -G "${directory}*.test.ts" >/dev/null && suites+=("$(basename "$directory")")
  done
fi
sources=()
for suite in "${suites[@]}"; do
  found=(test/"$suite"/*.test.ts)
  if [ ! -e "${found[0]}" ]; then
    give_up "no suite $suite: there is no test/$suite/*.test.ts"
  fi
  sources+=("${found[@]}")
done

peers=
if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
  say "bash test/support/peers.sh"
  bash test/support/peers.sh &
  peers=$!
fi
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say "npm ci"
  npm ci --no-audit --no-fund || give_up "npm ci failed"
fi
say "npm run build"
npm run --silent build || give_up "the build failed"
[ -z "$peers" ] || wait "$peers" || say "peers.sh failed: what needs a missing program skips"
[ "$(id -u)" = 0 ] || say "not root: tests that mount skip"
[ -e /dev/fuse ] || say "no /dev/fuse: tests that mount skip"

# Everything that the tests start or make has this directory in its environment or its path.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/vfbt-XXXXXX")
chmod 711 "$scratch"   # tests act as other users, too
mkdir -m 1777 "$scratch/tmp"
mkdir -m 700 "$scratch/run"
mark=VIRTIOFS_BRIDGE_TEST_RUN=$scratch

# Pids of processes of this run that are alive.
processes() { grep -lzxF "$mark" /proc/[0-9]*/environ 2>/dev/null | sed 's,^/proc/\([0-9]*\)/.*,\1,' || true; }

# Mount points below the scratch directory, the topmost first.
mounts() { awk -v at="$scratch/" 'index($5, at) == 1 { print $5 }' /proc/self/mountinfo | tac; }

# Says what the tests left behind, and removes it.
leftovers=0
look_for_leftovers() {
  local line mountpoint
  while read -r mountpoint; do
    say "left mounted: $mountpoint"
    leftovers=$((leftovers + 1))
    umount -l "$mountpoint" || true
  done < <(mounts)
  while read -r line; do
    say "left running: $line $(tr '\0' ' ' <"/proc/$line/cmdline" || true)"
    leftovers=$((leftovers + 1))
    kill -KILL "$line" || true
  done < <(processes)
  while read -r line; do
    say "left in the runtime directory: $line"
    leftovers=$((leftovers + 1))
  done < <(find "$scratch/run" -mindepth 2 ! -type d)
  rm -rf --one-file-system "$scratch"
  if [ $leftovers = 0 ]; then
    say "nothing is left: no mount, no process, no socket"
  else
    say "$leftovers things were left, and removed"
  fi
}

compiled=()
for source in "${sources[@]}"; do compiled+=("dist/${source%.ts}.js"); done
say "tap: ${#compiled[@]} files of ${suites[*]}"
tap_file=$scratch/results.tap
# Of tap's stream: a line per file, what failed with its details, what was skipped, remarks.
shorten() {
  awk '
    details { print; if ($1 == "..." && match($0, /[^ ]/) == details) details = 0; next }
    /^ *not ok / { print; failed = match($0, /[^ ]/); next }
    failed && /^ *---$/ { print; details = match($0, /[^ ]/); failed = 0; next }
    { failed = 0 }
    /^ok / || /# SKIP/ { print; fflush(); next }
    /^ *# / && !/^ *# (Subtest|time=|No coverage|\{ total)/ { print }
  '
}
status=0
env "$mark" "TMPDIR=$scratch/tmp" "XDG_RUNTIME_DIR=$scratch/run" \
  timeout --kill-after=20 2400 node dist/test/support/run-files.js "${compiled[@]}" </dev/null | tee "$tap_file" | shorten || status=$?
[ $status != 124 ] || say "stopped after 40 minutes"

# What tests say may be any bytes, hence -a.
# tap ends its stream with "# { total: 12, pass: 10, fail: 1, skip: 1 }"; without it tap itself was stopped
summary=$(grep -a '^# { ' "$tap_file" 2>/dev/null | tail -1 || true)
count() { echo "$summary" | sed -nE "s/.*[{ ]$1: ([0-9]+).*/\1/p" | grep . || echo 0; }
passed=$(count pass) failed=$(($(count fail) + $(count todo))) skipped=$(count skip)
if [ -z "$summary" ]; then
  say "tap did not come to its end"
  passed=$(grep -ac '^ok ' "$tap_file" 2>/dev/null || true)
  passed=${passed:-0} failed=1
elif [ $status != 0 ] && [ "$failed" = 0 ]; then
  failed=1
fi
look_for_leftovers
failed=$((failed + leftovers))
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
