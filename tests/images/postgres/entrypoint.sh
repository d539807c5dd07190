#!/bin/sh
# Starts PostgreSQL, making an empty server first where there is none. Arguments go to postgres as they are.
# The administrator's password comes from POSTGRES_PASSWORD or from the file named by PGPASSWORD_FILE;
# inside the container (psql by `kubectl exec`) no password is asked.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=$(mktemp)
    if [ -n "${PGPASSWORD_FILE:-}" ]; then cat "$PGPASSWORD_FILE"; else printf '%s' "$POSTGRES_PASSWORD"; fi > "$password"
    initdb --username=postgres --pwfile="$password" --auth-local=trust --auth-host=scram-sha-256 \
           --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    rm "$password"
fi
unset POSTGRES_PASSWORD
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
