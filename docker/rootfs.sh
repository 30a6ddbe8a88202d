#!/bin/sh
# Lays out every file of the image below a directory, as docker/Dockerfile copies it and docker/verify.sh runs it.
#
#     docker/rootfs.sh BINARY DIRECTORY
#
# Run it as root: the state directory belongs to the user that runs the image (65532), everything else to root.
set -eu
binary=$1
root=$2
user=65532

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/etc/switchback" "$root/var/lib"
install -m 0755 "$binary" "$root/usr/local/bin/switchback"
# For upstream TLS and webhooks that are not told of authorities of their own.
install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo "switchback:x:$user:$user:switchback:/:/nonexistent" > "$root/etc/passwd"
echo "switchback:x:$user:" > "$root/etc/group"
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
install -d -m 0700 -o "$user" -g "$user" "$root/var/lib/switchback"
