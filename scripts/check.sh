#!/bin/sh
# Says what is missing before a long build finds out.
set -eu

if ! command -v swift >/dev/null 2>&1; then
    cat >&2 <<'TEXT'
Swift is not installed (or not on the PATH). Polder needs Swift 6.3:
  https://www.swift.org/install/linux/
With swiftly:  curl -L https://swift.org/install.sh | bash  &&  swiftly install 6.3
TEXT
    exit 3
fi
version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | head -n 1)
major=${version% *}
minor=${version#* }
if [ -z "$version" ] || [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 2 ]; }; then
    echo "This is Swift ${version:-unknown}; Polder needs Swift 6.3: https://www.swift.org/install/linux/" >&2
    exit 3
fi

# A release build takes about 1.5 GB, tests as much again.
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
if [ "$free" -lt 3000 ]; then
    echo "Only $free MB are free here; building takes about 3000 MB." >&2
    exit 3
fi
