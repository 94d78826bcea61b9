# shellcheck shell=bash
# What script/setup and script/with-postgres share: messages, and how to recognise a PostgreSQL that
# Tidewire can use. Sourced, never run; it changes nothing by itself.

POSTGRES_MAJORS="18 17 16 15"
TIMESCALE_MIN="2.18"

note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    note "$*"
    exit 1
}

# Where fetched things live. World-readable for root, since PostgreSQL refuses to run as root.
cache_dir() {
    if [[ -n ${TIDEWIRE_CACHE_DIR:-} ]]; then
        printf '%s\n' "$TIDEWIRE_CACHE_DIR"
    elif [[ $(id -u) == 0 ]]; then
        printf '/var/cache/tidewire\n'
    elif [[ -n ${XDG_CACHE_HOME:-${HOME:-}} ]]; then
        printf '%s/tidewire\n' "${XDG_CACHE_HOME:-$HOME/.cache}"
    else
        die "neither HOME nor TIDEWIRE_CACHE_DIR is set: set TIDEWIRE_CACHE_DIR to a folder you can write to"
    fi
}

# The major version of the PostgreSQL in bin folder $1, or nothing.
postgres_major() {
    local version
    [[ -x $1/postgres && -x $1/initdb ]] || return 0
    version=$("$1/postgres" --version 2>/dev/null) || return 0
    [[ $version =~ \ ([0-9]+)(\.|[a-z]|\ |$) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
    return 0
}

# The default_version of TimescaleDB beside the bin folder $1 (major version $2), or nothing.
timescale_version() {
    local real share
    real=$(readlink -f "$1") || return 0
    for share in "$real/../share" "$real/../share/postgresql" "$real/../../../../share/postgresql/$2" \
        "$("$1/pg_config" --sharedir 2>/dev/null || true)"; do
        if [[ -n $share && -r $share/extension/timescaledb.control ]]; then
            sed -n "s/^ *default_version *= *'\([^']*\)'.*/\1/p" "$share/extension/timescaledb.control"
            return 0
        fi
    done
}

# Is version $1 at least $2? Dotted numbers; a suffix such as -dev is ignored.
version_at_least() {
    [[ -n $1 ]] && printf '%s\n%s\n' "$2" "${1%%-*}" | sort -C -V
}

# True if bin folder $1 holds a PostgreSQL 15 to 18 with TimescaleDB 2.18 or later.
# Otherwise `why_not` says what is missing.
usable_postgres() {
    local major timescale
    major=$(postgres_major "$1")
    if [[ -z $major ]]; then
        why_not="$1 holds no PostgreSQL server that starts here"
    elif [[ " $POSTGRES_MAJORS " != *" $major "* ]]; then
        why_not="$1 is PostgreSQL $major, and Tidewire needs 15 to 18"
    else
        timescale=$(timescale_version "$1" "$major")
        if version_at_least "$timescale" "$TIMESCALE_MIN"; then
            return 0
        fi
        # shellcheck disable=SC2034 # read by the callers
        why_not="TimescaleDB is ${timescale:-missing} beside $1, and Tidewire needs $TIMESCALE_MIN or later"
    fi
    return 1
}
