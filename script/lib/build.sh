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
