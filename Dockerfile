# The two images of the Tenant Backup Operator, one target each: `operator` decides, `runner` moves bytes.
# Builds with docker, podman or buildah; our own source is the last layer, so that a change rebuilds only that.

FROM debian:trixie-slim AS python
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale \
 && echo 'nonroot:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'nonroot:x:65532:' >> /etc/group

# pip lives in a venv of its own, so that none of it reaches the images.
FROM python AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && python3 -m venv /opt/pip \
 && python3 -m venv --without-pip /opt/venv
WORKDIR /build

# Where pip has to know a mirror or another certificate authority: --secret id=pip,src=pip.conf and
# --secret id=trusted,src=bundle.crt (pip.conf then says `cert = /run/trusted.crt`); neither enters the image.
# unchecked-hash: bytecode that start-up does not have to compare with its source. None for the Kubernetes
# client's models, which are large and never imported.
FROM builder AS operator-packages
COPY constraints/operator.txt .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=trusted,target=/run/trusted.crt \
    /opt/pip/bin/pip --python /opt/venv install --no-cache-dir --no-compile --require-hashes -r operator.txt \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
 && python3 -m compileall -q -j0 --invalidation-mode unchecked-hash -x 'kubernetes/(aio/)?client/(api|models)/' /opt/venv

FROM builder AS runner-packages
# mysqlclient comes as source.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libmariadb-dev pkg-config python3-dev
COPY constraints/runner.txt .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=trusted,target=/run/trusted.crt \
    /opt/pip/bin/pip --python /opt/venv install --no-cache-dir --no-compile --require-hashes -r runner.txt \
 && find /opt/venv -type d -name tests -prune -exec rm -rf {} + \
 && python3 -m compileall -q -j0 --invalidation-mode unchecked-hash /opt/venv

# pg_dump refuses servers newer than itself, and what it writes is read best by its own version: one client each.
FROM debian:bookworm-slim AS postgresql-15
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-client-15

FROM debian:trixie-slim AS postgresql-17
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-client-17

# Not in trixie yet: taken from the next Debian, with the library of its own version; all else they need is in
# trixie. The checks in the last stage say so when that changes. A release in the making renews its release files
# all the time, and mirrors lag behind.
FROM debian:trixie-slim AS postgresql-18
WORKDIR /tmp/packages
RUN sed -i s/trixie/forky/ $(find /etc/apt/sources.list* -type f) \
 && apt-get -o Acquire::Check-Valid-Until=false update \
 && apt-get download postgresql-client-18 libpq5 \
 && for package in *.deb; do dpkg-deb --extract "$package" /; done \
 && install -D /usr/lib/*/libpq.so.5 /usr/lib/postgresql/18/lib/libpq.so.5


FROM python AS operator
COPY --from=operator-packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/tenant-backup
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "tenant_backup.controllers"]
LABEL org.opencontainers.image.title="Tenant Backup Operator" \
      org.opencontainers.image.description="Backs up, proves and restores the databases of many tenants on Kubernetes"
COPY operator/tenant_backup /opt/tenant-backup/tenant_backup
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/tenant-backup
USER 65532:65532


FROM python AS runner
RUN apt-get update \
 && apt-get install -y --no-install-recommends libpq5 libreadline8t64 liblz4-1 libzstd1 libmariadb3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale
COPY --from=postgresql-15 /usr/lib/postgresql/15/bin/psql /usr/lib/postgresql/15/bin/pg_dump /usr/lib/postgresql/15/bin/pg_restore /usr/lib/postgresql/15/bin/
COPY --from=postgresql-17 /usr/lib/postgresql/17/bin/psql /usr/lib/postgresql/17/bin/pg_dump /usr/lib/postgresql/17/bin/pg_restore /usr/lib/postgresql/17/bin/
COPY --from=postgresql-18 /usr/lib/postgresql/18/bin/psql /usr/lib/postgresql/18/bin/pg_dump /usr/lib/postgresql/18/bin/pg_restore /usr/lib/postgresql/18/bin/
# All clients use the newest of their libraries, as Debian has it wherever several versions are installed.
COPY --from=postgresql-18 /usr/lib/postgresql/18/lib/libpq.so.5 /usr/lib/postgresql/18/lib/
RUN echo /usr/lib/postgresql/18/lib > /etc/ld.so.conf.d/00-libpq.conf && ldconfig
# A library that a client misses has to fail the build, not a backup. They are linked at once, not when needed.
RUN for client in /usr/lib/postgresql/*/bin/*; do "$client" --version || exit 1; done
COPY --from=runner-packages /opt/venv /opt/venv
RUN /opt/venv/bin/python -c 'import MySQLdb'
RUN printf '#!/bin/sh\nexec python -m tenant_backup.cli "$@"\n' > /usr/local/bin/tenant-backup \
 && chmod 0755 /usr/local/bin/tenant-backup
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/tenant-backup
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "tenant_backup.stages"]
LABEL org.opencontainers.image.title="Tenant Backup Runner" \
      org.opencontainers.image.description="The stages of the Tenant Backup Operator's Jobs: database clients and data path"
COPY operator/tenant_backup /opt/tenant-backup/tenant_backup
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/tenant-backup
USER 65532:65532
