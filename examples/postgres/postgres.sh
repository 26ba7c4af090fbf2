#!/bin/sh
# PostgreSQL on one port of this machine, with its data in a folder that is made when it is not there:
#
#   postgres.sh PORT [FOLDER [OPTION of postgres]...]
#
# PostgreSQL refuses to run as root: started by root, it runs as the user postgres, or nobody where there is none.
# Stop it with SIGINT: upon SIGTERM it waits for every client to leave first.
set -eu

port=$1
folder=${2:-data}
shift
[ $# -eq 0 ] || shift

programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$programs" ] || programs=$(dirname "$(command -v postgres)") || {
    echo "postgres.sh: there is no PostgreSQL here; on Debian: apt install postgresql" >&2
    exit 1
}

mkdir -p "$folder"
as=
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$folder"
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
    $as test -x "$folder" || {
        echo "postgres.sh: the user $user cannot reach $(pwd)/$folder; name a folder elsewhere, such as /var/tmp/db" >&2
        exit 1
    }
fi

export LC_ALL=C.UTF-8
[ -e "$folder/PG_VERSION" ] || $as "$programs/initdb" -D "$folder" -U postgres -A trust -E UTF8
exec $as "$programs/postgres" -D "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= "$@"
