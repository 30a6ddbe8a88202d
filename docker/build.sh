#!/bin/sh
# Builds the binary of the image: optimised, and linked statically so that it needs no file but itself.
#
#     docker/build.sh DESTINATION
#
# glibc is linked in as a whole (`crt-static`): its resolver for files and DNS is part of it, and names of endpoints are
# resolved by switchback itself. PROFILE=release builds faster, for a try.
set -eu
destination=$1
profile=${PROFILE:-dist}
host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are for the program alone, not for build scripts and macros.
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile "$profile" --target "$host" --bin switchback
install -m 0755 "${CARGO_TARGET_DIR:-target}/$host/$profile/switchback" "$destination"
