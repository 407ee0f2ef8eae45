#!/bin/bash
# Provides the programs that the tests and benchmarks run beside virtiofs-bridge.
#
#   bash test/support/peers.sh           what the tests need
#   bash test/support/peers.sh --bench   also what the benchmarks compare with
#
# Installed by apt-get, each only if it is missing: fuse3 (fusermount3),
# libfuse2 (for fuse-native), git, attr, acl, groff-base (the manual page), zsh (its
# completion), openssh-client, openssh-server (which is not started), and a C compiler
# if there is none.
# With --bench also bindfs, gnuplot, sshfs, libfuse3-dev, pkg-config.
#
# Put into .peers/ at the repository root (git-ignored), nothing installed:
#   virtiofsd-rust   runs the Rust virtiofsd of Debian trixie or later. A suite that
#                    has the package installs it. Bookworm's glibc is too old for it:
#                    there trixie's virtiofsd and its libraries are unpacked under
#                    .peers/trixie, and started through that tree's own loader.
#   virtiofsd-c      runs the C virtiofsd 7.2 of bookworm's qemu-system-common,
#                    unpacked under .peers/qemu. Later suites do not have it.
#   passthrough_ll   (--bench) libfuse's example, compiled with -O2
#
# The mirror is the one this machine's apt is set up with, and apt checks every
# signature. Needs root on Debian, amd64 or arm64; elsewhere it says what is missing
# and exits 0, and the tests that need a missing program skip, saying so.
# Running it again does nothing, quickly.
set -euo pipefail

bench=no
for argument in "$@"; do
  case $argument in
    --bench) bench=yes ;;
    *) echo "peers: unknown option $argument (only --bench)" >&2; exit 1 ;;
  esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
peers=$root/.peers
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

say() { echo "peers: $*"; }
have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
have_library() { [ -n "$(find /lib /usr/lib /usr/local/lib -maxdepth 2 -name "$1" -print -quit 2>/dev/null)" ]; }

# What is missing: Debian packages, and files of .peers/
packages=()
have fusermount3 || packages+=(fuse3)
have_library libfuse.so.2 || packages+=(libfuse2)
have git || packages+=(git)
have cc || packages+=(gcc libc6-dev)
have make || packages+=(make)
have setfattr || packages+=(attr)
have setfacl || packages+=(acl)
have groff || packages+=(groff-base)
have zsh || packages+=(zsh)
have ssh || packages+=(openssh-client)
have sshd || packages+=(openssh-server)
outputs=()
[ -x "$peers/virtiofsd-rust" ] || outputs+=(virtiofsd-rust)
[ -x "$peers/virtiofsd-c" ] || [ -e "$peers/virtiofsd-c.absent" ] || outputs+=(virtiofsd-c)
if [ $bench = yes ]; then
  have bindfs || packages+=(bindfs)
  have gnuplot || packages+=(gnuplot-nox)
  have sshfs || packages+=(sshfs)
  if [ ! -x "$peers/passthrough_ll" ]; then
    outputs+=(passthrough_ll)
    have pkg-config || packages+=(pkg-config)
    [ -e /usr/share/doc/libfuse3-dev/examples ] || packages+=(libfuse3-dev)
  fi
fi
if [ ${#packages[@]} = 0 ] && [ ${#outputs[@]} = 0 ]; then
  say "all there"
  exit 0
fi

missing="${packages[*]} ${outputs[*]}"
if ! have apt-get || ! have dpkg-deb || [ ! -e /etc/debian_version ]; then
  say "this is not Debian: provide these yourself: $missing"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  say "not root: run as root to provide: $missing"
  exit 0
fi
arch=$(dpkg --print-architecture)
case $arch in
  amd64 | arm64) ;;
  *) say "nothing is prepared for $arch; missing: $missing"; exit 0 ;;
esac

# Downloads are made by root: the download user of apt cannot write below .peers/
apt_get() { apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"; }
candidate() { apt-cache policy "$1" | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true; }

# Runs a command, and shows its output only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
  else
    cat "$log" >&2
    rm -f "$log"
    say "failed: $*" >&2
    return 1
  fi
}

# A package that has a service does not start it: the tests start their own.
install() {
  local policy=/usr/sbin/policy-rc.d ours=no
  say "installing $*"
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    ours=yes
  fi
  local status=0
  quietly apt_get install -y --no-install-recommends "$@" || status=$?
  [ $ours = no ] || rm -f $policy
  return $status
}

# unpack TREE PACKAGE... [APT OPTIONS in the array apt_options]: downloads and unpacks
unpack() {
  local tree=$1 debs
  shift
  debs=$(mktemp -d "$peers/debs.XXXXXX")
  (cd "$debs" && quietly apt_get "${apt_options[@]}" download "$@")
  mkdir -p "$tree"
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$tree"; done
  rm -rf "$debs"
}

# Writes an executable wrapper from standard input; it appears only when complete.
wrapper() {
  cat >"$peers/$1.part"
  chmod +x "$peers/$1.part"
  mv "$peers/$1.part" "$peers/$1"
}

# The Rust virtiofsd, installed: trixie and later.
rust_installed() {
  dpkg -s virtiofsd >/dev/null 2>&1 || install virtiofsd
  wrapper virtiofsd-rust <<WRAPPER
#!/bin/sh
# virtiofsd as installed by the Debian package
exec $(dpkg -L virtiofsd | grep '/virtiofsd$' | head -1) "\$@"
WRAPPER
}

# Points apt at trixie on this machine's own mirror, with a state of its own, so that
# the machine's package lists are not touched. Sets apt_options.
trixie_apt() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg state=$peers/apt mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
  if [ -z "$mirror" ]; then
    say "apt here has no Debian mirror: no virtiofsd-rust"
    return 1
  fi
  if [ ! -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ]; then
    say "this keyring is older than trixie: upgrading debian-archive-keyring"
    quietly apt_get install -y --no-install-recommends debian-archive-keyring
  fi
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/sources.d"
  : >"$state/status"
  echo "deb [arch=$arch signed-by=$keyring] $mirror trixie main" >"$state/sources.list"
  apt_options=(
    -o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::Etc::sourceparts=$state/sources.d"
    -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::State::lists=$state/lists"
    -o "Dir::Cache=$state/cache" -o Acquire::Languages=none
  )
  quietly apt_get "${apt_options[@]}" update
}

# The Rust virtiofsd, unpacked with the glibc it needs: bookworm.
rust_unpacked() {
  say "unpacking trixie's virtiofsd and its libraries into .peers/trixie"
  local apt_options=()
  trixie_apt || return 0
  rm -rf "$peers/trixie"
  unpack "$peers/trixie" virtiofsd libc6 libseccomp2 libcap-ng0 libgcc-s1
  rm -rf "$peers/apt"
  local loader program libraries
  loader=$(cd "$peers" && find trixie -name 'ld-linux*.so.*' | head -1)
  program=$(cd "$peers" && find trixie -name virtiofsd -type f -perm -u+x | head -1)
  libraries=$(cd "$peers" && dirname "$(find trixie -name libc.so.6 | head -1)")
  wrapper virtiofsd-rust <<WRAPPER
#!/bin/sh
# trixie's virtiofsd, started through trixie's loader with trixie's libraries
here=\$(dirname "\$(readlink -f "\$0")")
exec "\$here/$loader" --library-path "\$here/$libraries" "\$here/$program" "\$@"
WRAPPER
}

# The C virtiofsd, unpacked. QEMU dropped it in 8.0.
c_unpacked() {
  local version package program
  version=$(candidate qemu-system-common)
  if [ -z "$version" ] || dpkg --compare-versions "$version" ge 1:8.0; then
    say "no C virtiofsd in this suite (qemu-system-common ${version:-absent})"
    touch "$peers/virtiofsd-c.absent"
    return 0
  fi
  say "unpacking the C virtiofsd of qemu-system-common $version into .peers/qemu"
  rm -rf "$peers/qemu"
  local apt_options=()
  unpack "$peers/qemu" qemu-system-common
  program=$peers/qemu/usr/lib/qemu/virtiofsd
  for library in $(ldd "$program" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p'); do
    case $library in
      libseccomp.so.2) package=libseccomp2 ;;
      libcap-ng.so.0) package=libcap-ng0 ;;
      libglib-2.0.so.0 | libgmodule-2.0.so.0) package=libglib2.0-0 ;;
      libnuma.so.1) package=libnuma1 ;;
      *) say "the C virtiofsd needs $library, and which package has it is not known here" >&2; return 1 ;;
    esac
    unpack "$peers/qemu" "$package"
  done
  local triplet
  triplet=$(ls -d "$peers"/qemu/usr/lib/*-linux-gnu "$peers"/qemu/lib/*-linux-gnu 2>/dev/null |
    sed "s,^$peers/,\$here/," | paste -sd: || true)
  wrapper virtiofsd-c <<WRAPPER
#!/bin/sh
# bookworm's C virtiofsd, with the libraries the system lacks from the same tree.
# Its seccomp filter kills it when malloc, for the arena of one more thread, counts the CPUs
# (sched_getaffinity): with a limit there is no need to.
export MALLOC_ARENA_MAX=4
here=\$(dirname "\$(readlink -f "\$0")")
LD_LIBRARY_PATH="$triplet\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "\$here/qemu/usr/lib/qemu/virtiofsd" "\$@"
WRAPPER
}

build_passthrough_ll() {
  say "compiling libfuse's passthrough_ll"
  local examples=/usr/share/doc/libfuse3-dev/examples build
  build=$(mktemp -d "$peers/build.XXXXXX")
  # The example includes passthrough_helpers.h beside it; either may be compressed.
  for file in passthrough_ll.c passthrough_helpers.h; do
    if [ -e "$examples/$file.gz" ]; then
      gzip -dc "$examples/$file.gz" >"$build/$file"
    elif [ -e "$examples/$file" ]; then
      cp "$examples/$file" "$build/$file"
    else
      say "libfuse3-dev has no $examples/$file (are documents excluded in dpkg's configuration?)" >&2
      rm -rf "$build"
      return 1
    fi
  done
  # shellcheck disable=SC2046  (the flags are words)
  quietly cc -O2 -w -o "$build/passthrough_ll" "$build/passthrough_ll.c" $(pkg-config --cflags --libs fuse3)
  mv "$build/passthrough_ll" "$peers/passthrough_ll"
  rm -rf "$build"
}

mkdir -p "$peers"
say "refreshing apt's package lists"
quietly apt_get update
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
for output in ${outputs[@]+"${outputs[@]}"}; do
  case $output in
    virtiofsd-rust) if [ -n "$(candidate virtiofsd)" ]; then rust_installed; else rust_unpacked; fi ;;
    virtiofsd-c) c_unpacked ;;
    passthrough_ll) build_passthrough_ll ;;
  esac
done
say "done: $(cd "$peers" && find . -maxdepth 1 -type f -perm -u+x -printf '%f ' | tr -s ' ')in .peers/"
