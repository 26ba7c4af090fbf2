#!/bin/sh
# Run PostgreSQL at a port of this machine. The data directory is created if it does not exist.
#
#   postgres.sh PORT [DIRECTORY [OPTION of postgres]...]
#
# PostgreSQL refuses to run as root. If root starts this script, it runs as the user postgres, or as nobody.
# Stop it with SIGINT; on SIGTERM it first waits until all clients have disconnected.
set -eu

port=$1
directory=${2:-data}
shift
[ $# -eq 0 ] || shift

programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$programs" ] || programs=$(dirname "$(command -v postgres)") || {
    echo "postgres.sh: PostgreSQL not found; on Debian, install it with: apt install postgresql" >&2
    exit 1
}

mkdir -p "$directory"
as=
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$directory"
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
    $as test -x "$directory" || {
        echo "postgres.sh: the user $user cannot reach $(pwd)/$directory; use another directory, for example /var/tmp/db" >&2
        exit 1
    }
fi

export LC_ALL=C.UTF-8
[ -e "$directory/PG_VERSION" ] || $as "$programs/initdb" -D "$directory" -U postgres -A trust -E UTF8
exec $as "$programs/postgres" -D "$directory" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= "$@"
