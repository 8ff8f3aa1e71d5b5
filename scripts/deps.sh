#!/bin/sh
# Installs the system libraries that Polder links with. Does nothing when they are there.
set -eu
packages="libnghttp2-dev libssl-dev liblz4-dev zlib1g-dev librocksdb-dev libjemalloc-dev libcrypt-dev pkg-config"

if ! command -v dpkg-query >/dev/null 2>&1; then
    if pkg-config --exists libnghttp2 openssl liblz4 zlib 2>/dev/null; then exit 0; fi
    cat >&2 <<TEXT
This is not Debian or Ubuntu: please install the development files of these yourself, then go on
with \`make build\`: nghttp2, OpenSSL 3, LZ4, zlib, RocksDB (7.8 or newer), jemalloc, libcrypt (libxcrypt), and pkg-config.
  Fedora:  dnf install libnghttp2-devel openssl-devel lz4-devel zlib-devel rocksdb-devel jemalloc-devel libxcrypt-devel pkgconf
  Arch:    pacman -S libnghttp2 openssl lz4 zlib rocksdb jemalloc libxcrypt pkgconf
TEXT
    exit 3
fi

missing=""
for package in $packages "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' \
        || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1; then
        sudo=sudo
    else
        echo "Missing packages:$missing" >&2
        echo "You are not root and there is no sudo. As root: apt-get install$missing" >&2
        exit 3
    fi
fi
echo "Installing$missing"
$sudo apt-get update -qq || echo "apt-get update failed; trying with the lists that are here" >&2
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
    echo "apt-get could not install:$missing" >&2
    exit 3
}
