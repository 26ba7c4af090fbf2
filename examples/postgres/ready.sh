#!/bin/sh
# Whether the PostgreSQL on a port answers: ready.sh PORT
# It listens a moment before it does, and turns clients away meanwhile ("the database system is starting up").
set -eu
program=$(ls /usr/lib/postgresql/*/bin/pg_isready 2>/dev/null | sort -V | tail -n 1)
exec "${program:-pg_isready}" -q -h 127.0.0.1 -p "$1"
