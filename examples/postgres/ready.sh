#!/bin/sh
# Exit with 0 if PostgreSQL at a port accepts clients: ready.sh PORT
# PostgreSQL listens before it accepts clients, and rejects them until then ("the database system is starting up").
set -eu
program=$(ls /usr/lib/postgresql/*/bin/pg_isready 2>/dev/null | sort -V | tail -n 1)
exec "${program:-pg_isready}" -q -h 127.0.0.1 -p "$1"
