#!/bin/sh
# Starts MySQL, making an empty server first where there is none. Arguments go to mysqld as they are.
# The administrator is root, from anywhere, with MYSQL_PASSWORD; inside the container (mysql by `kubectl exec`)
# no password is asked.
set -eu

data=/var/lib/mysql/server
if [ ! -d "$data/mysql" ]; then
    mysqld --no-defaults --initialize-insecure --datadir="$data"
    # One statement each line.
    printf "CREATE USER root@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO root@'%%' WITH GRANT OPTION;\n" \
           "$MYSQL_PASSWORD" > /var/lib/mysql/first.sql
    set -- "--init-file=/var/lib/mysql/first.sql" "$@"
fi
unset MYSQL_PASSWORD
exec mysqld --no-defaults --datadir="$data" --socket=/tmp/mysqld.sock --mysqlx=OFF --secure-file-priv=NULL --skip-name-resolve "$@"
