#!/bin/sh
# collect.sh build|prebuilt RUNTIME_BASE ROOT: puts into ROOT what the image is to hold. Runs in the
# Containerfile, as root, in the checkout. On a runtime base that is not `scratch` the C and C++
# libraries and the files of /etc are the base's own.
set -eu

binaries=$1
runtime_base=$2
root=$3
PROGRAMS="muster-coordinator muster-worker musterctl"
PACKAGES="binutils ca-certificates libdnnl2 libgomp1 libhwy1 libprometheus-cpp-core1.0"

fail() {
  echo "collect.sh: $*" >&2
  exit 1
}

# Installs nothing where all is there, so that a base which brings it needs no network.
install_packages() {
  # shellcheck disable=SC2086 # a list of words
  if ! dpkg-query -s $PACKAGES >/dev/null 2>&1; then
    apt-get -q update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $PACKAGES
  fi
}

check_programs() {
  for program in $PROGRAMS; do
    [ -x "out/bin/$program" ] ||
      fail "out/bin has no $program. Run ./muster build before, or build with --build-arg BINARIES=build."
  done
}

take_programs() {
  mkdir -p "$root/usr/bin"
  for program in $PROGRAMS; do
    strip --strip-unneeded -o "$root/usr/bin/$program" "out/bin/$program"
    chmod 0755 "$root/usr/bin/$program"
  done
}

# The paths of all libraries that the programs load, one a line.
libraries() {
  for program in $PROGRAMS; do
    ldd "$root/usr/bin/$program"
  done >/tmp/loaded
  ! grep 'not found' /tmp/loaded >&2 || fail "these libraries are in no package of: $PACKAGES"
  awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' /tmp/loaded | sort -u
}

# What belongs to the compiler and the C library.
is_system_library() {
  case ${1##*/} in
    ld-linux* | libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libresolv.so.* | \
      libstdc++.so.* | libgcc_s.so.*) return 0 ;;
  esac
  return 1
}

# Debian's /lib is a link to /usr/lib.
take_libraries() {
  loaded=$(libraries) || exit 1
  for library in $loaded; do
    if [ "$runtime_base" != scratch ] && is_system_library "$library"; then continue; fi
    case $library in
      /usr/*) place=$root$library ;;
      *) place=$root/usr$library ;;
    esac
    mkdir -p "${place%/*}"
    cp -L "$library" "$place"
  done
}

# What a root file system needs besides: a user, names, certificates, and where to mount.
make_system() {
  mkdir -p "$root/etc/ssl/certs" "$root/proc" "$root/sys" "$root/dev" "$root/run"
  mkdir -m 1777 "$root/tmp"
  ln -s usr/lib "$root/lib"
  [ ! -d "$root/usr/lib64" ] || ln -s usr/lib64 "$root/lib64"
  echo 'muster:x:65532:65532:Muster:/:/sbin/nologin' >"$root/etc/passwd"
  echo 'muster:x:65532:' >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

case $binaries in
  build)
    ./muster build
    bazel shutdown
    ;;
  prebuilt) ;;
  *) fail "BINARIES is '$binaries'; it can be build or prebuilt" ;;
esac
check_programs
install_packages
take_programs
take_libraries
[ "$runtime_base" != scratch ] || make_system
