#!/bin/bash
# Shows what virtiofs-bridge does: npm run demo
#
# Installs the npm packages when they are missing, builds, makes a directory with a few
# files, and mounts it on this machine: through the emulated device, then through a
# virtiofsd where there is one (.peers, $VIRTIOFSD, $PATH, the usual places). On each
# mount it lists, writes and reads back, unmounts, and shows the trace of it. Needs root,
# or fusermount3 (package fuse3). Whatever happens, nothing stays mounted.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C.UTF-8
say() { echo "demo: $*"; }
give_up() {
  say "$1" >&2
  exit 1
}

if [ ! -e /dev/fuse ]; then
  give_up "there is no /dev/fuse here: the kernel's fuse module is missing (modprobe fuse), or this is a container without the device"
elif [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
  give_up "/dev/fuse cannot be opened by $(id -un)"
elif [ "$(id -u)" != 0 ] && ! command -v fusermount3 >/dev/null; then
  give_up "not root, and fusermount3 is not installed (package fuse3): mounting is not possible"
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/virtiofs-bridge-demo-XXXXXX")
cleanup() {
  if mountpoint -q "$scratch/mnt"; then
    umount -l "$scratch/mnt" 2>/dev/null || fusermount3 -uz "$scratch/mnt" || true
  fi
  rm -rf --one-file-system "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export XDG_RUNTIME_DIR=$scratch/run
mkdir -m 700 "$scratch/run" "$scratch/shared" "$scratch/mnt"

root=$PWD
virtiofs-bridge() { node "$root/dist/command/virtiofs-bridge.js" "$@"; }
# Runs a command line, and shows it with its output; names are relative to the scratch directory.
show() {
  echo "  \$ ${1//$scratch\//}"
  eval "$1" 2>&1 | sed "s,$scratch/,,g; s/^/    /"
}

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say "npm ci"
  npm ci --no-audit --no-fund || give_up "npm ci failed"
fi
say "npm run build"
npm run --silent build || give_up "the build failed"

cd "$scratch"
printf 'Hello from the shared directory.\n' >shared/hello.txt
mkdir shared/docs
head -c 300000 /dev/zero | tr '\0' 'x' >shared/docs/large

# round TITLE [OPTIONS for -o]: mounts, uses, unmounts
round() {
  local title=$1 options=${2:+$2,}
  rm -f trace
  echo
  say "$title"
  show "virtiofs-bridge $scratch/shared $scratch/mnt -o ${options}trace_json=$scratch/trace"
  show "findmnt -n -o FSTYPE,SOURCE,TARGET mnt"
  show "ls -lR --time-style=+ mnt"
  show "cat mnt/hello.txt"
  show "echo 'written through the mount' >mnt/new.txt && cat shared/new.txt"
  show "cp mnt/docs/large mnt/copy && cmp mnt/copy shared/docs/large && echo the copy is the same"
  show "rm mnt/new.txt mnt/copy"
  show "virtiofs-bridge umount $scratch/mnt"
  say "what the device was asked, and how the session ended (from the trace):"
  node "$root/dist/test/support/demo-trace.js" trace | sed 's/^/    /'
}

find_virtiofsd() {
  local place
  for place in "$root/.peers/virtiofsd-rust" "${VIRTIOFSD:-}" "$(command -v virtiofsd || true)" /usr/libexec/virtiofsd /usr/lib/virtiofsd /usr/lib/qemu/virtiofsd; do
    if [ -n "$place" ] && [ -x "$place" ] && [ ! -d "$place" ]; then
      echo "$place"
      return
    fi
  done
}

round "the emulated device: the directory is served in the same process"
virtiofsd=$(find_virtiofsd)
if [ -z "$virtiofsd" ]; then
  echo
  say "no virtiofsd here, so no mount through it (package virtiofsd; as root npm test provides one)"
elif [ "$(id -u)" != 0 ]; then
  echo
  say "$virtiofsd is there, but not root: no mount through it"
else
  round "virtiofsd: the same requests over a vhost-user socket to $virtiofsd" "$(printf 'backend=virtiofsd,virtiofsd=%q' "$virtiofsd")"
fi
echo
say "done: nothing is left mounted"
