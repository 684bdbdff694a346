#!/bin/sh
# Takes the installation back; refused while confidential pods run on the node. Restart containerd afterwards.
set -eu
. "$(dirname "$0")/on-node.sh"
on_node node uninstall --prefix "$target" "$@"
exec sleep infinity
