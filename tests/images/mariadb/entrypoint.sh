#!/bin/sh
# Starts MariaDB, making an empty server first where there is none. Arguments go to mariadbd as they are.
# The administrator is root, from anywhere, with MARIADB_PASSWORD; inside the container (mariadb by `kubectl exec`)
# no password is asked.
set -eu

data=/var/lib/mysql/server
if [ ! -d "$data/mysql" ]; then
    mariadb-install-db --no-defaults --datadir="$data" --skip-test-db --skip-name-resolve \
                       --auth-root-authentication-method=normal > /dev/null
    # One statement each line.
    printf "CREATE USER root@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO root@'%%' WITH GRANT OPTION;\n" \
           "$MARIADB_PASSWORD" > /var/lib/mysql/first.sql
    set -- "--init-file=/var/lib/mysql/first.sql" "$@"
fi
unset MARIADB_PASSWORD
exec mariadbd --no-defaults --datadir="$data" --socket=/tmp/mysqld.sock --bind-address=0.0.0.0 --skip-name-resolve "$@"
