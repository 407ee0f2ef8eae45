#!/bin/bash
# Runs the file system tests of @zenfs/core on a connected device:
#
#   bash test/zenfs/run.sh [PEER...]      emulated (default), virtiofsd-rust, virtiofsd-c
#
# The package is got into a directory of its own, its tests are compiled there; nothing of
# it becomes a dependency. test/zenfs/setup.ts says what is switched off, and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD version=2.7.6
[ -d dist ] || npm run --silent build
work=${ZENFS_WORK:-${TMPDIR:-/tmp}/virtiofs-bridge-zenfs-$version}
if [ ! -e "$work/ready" ]; then
  mkdir -p "$work"
  (cd "$work" && echo '{"type":"module","private":true}' >package.json && npm install --no-audit --no-fund --ignore-scripts "@zenfs/core@$version" >&2)
  rm -rf "$work/tests"
  cp -r "$work/node_modules/@zenfs/core/tests" "$work/tests"
  cat >"$work/tsconfig.json" <<'EOF'
{ "compilerOptions": { "target": "es2022", "module": "nodenext", "types": [], "noCheck": true, "rewriteRelativeImportExtensions": true, "rootDir": "tests", "outDir": "built" },
  "include": ["tests/common.ts", "tests/setup.ts", "tests/fs/*.test.ts"] }
EOF
  "$root/node_modules/.bin/tsc" -p "$work"
  cp -r "$work/tests/logs.js" "$work/tests/data" "$work/built/"
  touch "$work/ready"
fi

status=0
for peer in "${@:-emulated}"; do
  timeout --kill-after=10 600 node dist/test/zenfs/check.js "$work" "$peer" || status=1
done
exit $status
