# shellcheck shell=bash
# What the scripts that build share: where builds are kept, and headings. Sourced, never run.

# shellcheck source-path=SCRIPTDIR source=postgres.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"

# Builds are shared between clones, so that a fresh one does not compile its dependencies again.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(cache_dir)/target}
export CARGO_TARGET_DIR

say() {
    printf '\033[1m==> %s\033[0m\n' "$*" >&2
}

# Cargo tells an artifact of this checkout from another's by the times of the files alone, so that a
# build that another checkout left would pass for ours where our files are the older ones. Whoever
# comes to a folder that another checkout built in last makes its own files new.
own_build_cache() {
    local checkout mark=$CARGO_TARGET_DIR/checkout
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    if [[ ! -f $mark || $(<"$mark") != "$checkout" ]]; then
        find "$checkout"/{src,tests,benches} -name '*.rs' -exec touch {} +
        mkdir -p "$CARGO_TARGET_DIR"
        printf '%s\n' "$checkout" >"$mark"
    fi
}
own_build_cache
