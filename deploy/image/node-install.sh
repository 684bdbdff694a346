#!/bin/sh
# Puts this image's release beside earlier ones on the node, and makes it the installed one. Pods that run go on with
# the release that they began with, so earlier ones stay until somebody removes them.
set -eu
. "$(dirname "$0")/on-node.sh"
if [ ! -e "$release" ]; then
  mkdir -p "$target/releases"
  rm -rf "$release.new"
  cp -a "$source/." "$release.new"
  # Whole or not at all.
  mv "$release.new" "$release"
fi
on_node node install --prefix "$target" "$@"
echo installed
exec sleep infinity
