# shellcheck shell=bash
# Where downloads and builds are kept between runs; sourced by the other scripts.

cache_dir() {
    if [[ -n ${TIDEWIRE_CACHE_DIR:-} ]]; then
        printf '%s\n' "$TIDEWIRE_CACHE_DIR"
    elif [[ $(id -u) == 0 ]]; then
        printf '%s\n' /var/cache/tidewire
    else
        printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/tidewire"
    fi
}

# Builds are shared between clones, so that a fresh one does not compile its dependencies again.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(cache_dir)/target}
export CARGO_TARGET_DIR

say() {
    printf '\033[1m==> %s\033[0m\n' "$*" >&2
}
