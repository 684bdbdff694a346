#!/bin/sh
# Tells the kubelet whether pods can run on the node; what is missing becomes an event of the installer's pod.
set -eu
. "$(dirname "$0")/on-node.sh"
on_node node check --prefix "$target" "$@" 2>&1
