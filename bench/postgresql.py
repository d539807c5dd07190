"""A large PostgreSQL database against the pipes people write by hand, on this machine, no cluster."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyrage

from hack.lab.chain import Chain, Ended
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from tenant_backup.contract import job as jobs

from .figures import Figures

_ROWS_PER_GB = 3_000_000
# Wide and narrow columns, text that compresses about 3:1: like an activity log and its neighbours.
_FILL = """
CREATE TABLE log (id bigint PRIMARY KEY, at timestamptz, actor int, action text, details jsonb, amount numeric, hash text);
INSERT INTO log SELECT i, timestamptz '2024-01-01' + i * interval '1 second', i % 5000, 'action ' || i % 40,
  jsonb_build_object('i', i, 'text', repeat('lorem ipsum ' || i % 100, 8)), i / 7.0, md5(i::text) FROM generate_series(1, {rows}) i;
VACUUM ANALYZE log;
"""
OPENSSL_PIPE = "pg_dump | zstd -3 -c | openssl enc -aes-256-ctr -K $KEY -iv $IV | sha256sum"
GZIP_PIPE = "pg_dump | gzip > /dev/null"


def measure(figures: Figures, size: float, runs: int) -> None:
    """Full backup against two pipes, restore against pg_restore, peak memory of each stage."""
    with host_postgres() as server, tempfile.TemporaryDirectory(prefix="tenant-backup-bench-") as folder:
        print(f"PostgreSQL: filling a database with about {size} GB of rows …", flush=True)
        server.sql("CREATE ROLE big LOGIN PASSWORD 'lab'; CREATE DATABASE big OWNER big")
        server.sql(
            f"SET ROLE big; {_FILL.format(rows=int(size * _ROWS_PER_GB)).replace('VACUUM ANALYZE log;', '')}",
            "big",
        )
        server.sql("VACUUM ANALYZE log", "big")
        bench = _Bench(server, Chain(Path(folder)))
        ours, ended = _alternate(bench, runs, figures)
        for stage in ("dump", "archive", "upload"):
            figures.add(f"rss_{stage}", "bytes", [float(run[stage].peak_rss) for run in ended], max)
        facts = ended[-1]["upload"].result
        assert facts is not None
        speed = facts.facts["bytes"]["logical"] / min(ours) / 1e6
        print(f"  read {facts.facts['bytes']['logical'] / 1e6:.0f} MB at {speed:.0f} MB/s")


def _alternate(bench: _Bench, runs: int, figures: Figures) -> tuple[list[float], list[dict[str, Ended]]]:
    ours, pipe, gzip, ended = [], [], [], []
    for _ in range(runs):
        pipe.append(bench.seconds(lambda: bench.pipe(OPENSSL_PIPE)))
        ours.append(bench.seconds(lambda: ended.append(bench.back_up())))
        gzip.append(bench.seconds(lambda: bench.pipe(GZIP_PIPE)))
    figures.add("pg_full_seconds", "seconds", ours)
    figures.add_ratio("pg_full_vs_openssl_pipe", pipe, ours)
    figures.add_ratio("pg_full_vs_gzip", gzip, ours)
    return ours, ended


class _Bench:
    def __init__(self, server: HostPostgres, chain: Chain) -> None:
        self._server = server
        self._chain = chain
        self._identity = pyrage.x25519.Identity.generate()
        chain.write_keys()
        chain.write_secret("database", {"username": "big", "password": PASSWORD})
        chain.write_secret("admin", {"username": "postgres", "password": PASSWORD})
        chain.write_secret("identity", {"identity": str(self._identity)})

    def seconds(self, work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def pipe(self, command: str) -> None:
        environment = self._server.environment("big") | {
            "KEY": secrets.token_hex(32),
            "IV": secrets.token_hex(16),
        }
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], env=environment, check=True, capture_output=True
        )

    def back_up(self) -> dict[str, Ended]:
        tenant = jobs.Tenant("bench", "default", "big", "big")
        database = jobs.Database("PostgreSQL", "127.0.0.1", self._server.port, "big", tls_mode="Disable")
        run = uuid.uuid4().hex
        backup = jobs.Backup(
            uid=run,
            backup_id=f"big_{run[:8]}",
            name="bench",
            tenant=tenant,
            database=database,
            store=jobs.Store("volume"),
            recipients=[str(self._identity.to_public())],
            verify=False,  # the pipes verify nothing either
        )
        ended = self._chain.run(backup)
        for item in ended.values():
            if item.code:
                raise RuntimeError(f"stage {item.stage} ended with {item.code}: {item.stderr[-2000:]}")
        return ended
