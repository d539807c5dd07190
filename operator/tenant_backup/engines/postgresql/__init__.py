"""PostgreSQL 15 and newer: one snapshot, the server's own COPY and pg_dump, restores without superuser."""
