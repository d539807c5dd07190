"""docs/performance.md and its picture, from what the bench measured."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .figures import shown


@dataclass(frozen=True)
class _Row:
    """One figure of the page, and the target it has."""

    name: str
    what: str
    target: str = ""
    keeps: Callable[[float, float], bool] | None = None
    bound: float = 0

    def mark(self, value: float) -> str:
        """Whether the target is kept, if there is one."""
        if self.keeps is None:
            return ""
        return "kept" if self.keeps(value, self.bound) else "**missed**"


def _family(key: str, title: str) -> tuple[_Row, ...]:
    """The rows of MariaDB or MySQL."""
    dump, client = f"{key}{'-' * (key == 'mariadb')}dump", key
    pipe = f"{title}, full backup against `{dump} \\| zstd -3 \\| openssl aes-256-ctr \\| sha256sum`"
    restore, many = f"{title}, restore against `{client} <`", f"{title}, 5,000 tables, against `{dump}`"
    memory = {"dump": 64, "archive": 256, "upload": 256, "open": 256, "load": 256}  # MiB
    return (
        _Row(f"{key}_full_vs_openssl_pipe", pipe, "≥ 1.0 ×", operator.ge, 1),
        _Row(f"{key}_restore_vs_client", restore, "≥ 1.2 ×", operator.ge, 1.2),
        _Row(f"{key}_full_seconds", "full backup"),
        _Row(f"{key}_restore_seconds", "restore"),
        _Row(f"{key}_5000_tables_vs_dump", many, "≥ 0.83 ×", operator.ge, 1 / 1.2),
        _Row(f"{key}_5000_tables_seconds", "their full backup"),
        *(
            _Row(f"{key}_rss_{stage}", f"peak memory of `{stage}`", f"≤ {most} MiB", operator.le, most << 20)
            for stage, most in memory.items()
        ),
    )


_ROWS = (
    _Row(
        "pg_full_vs_openssl_pipe",
        "full backup against `pg_dump \\| zstd -3 \\| openssl aes-256-ctr \\| sha256sum`",
        "≥ 1.0 ×",
        operator.ge,
        1,
    ),
    _Row("pg_full_vs_gzip", "full backup against `pg_dump \\| gzip`", "≥ 2.5 ×", operator.ge, 2.5),
    _Row(
        "pg_full_vs_restic",
        "full backup against `pg_dump \\| restic backup --stdin`",
        "≥ 1.5 ×",
        operator.ge,
        1.5,
    ),
    _Row("pg_restore_vs_pg_restore_j2", "restore against `pg_restore -j2`", "≥ 1.0 ×", operator.ge, 1),
    _Row(
        "pg_restore_vs_restore_and_analyze",
        "restore against `pg_restore -j2 && vacuumdb --analyze-only -j2`, what ours does, too",
    ),
    _Row("pg_full_seconds", "full backup"),
    _Row("pg_full_bytes_per_second", "read from the database each second"),
    _Row("pg_restore_seconds", "restore"),
    *(row for key, title in (("mariadb", "MariaDB"), ("mysql", "MySQL")) for row in _family(key, title)),
    _Row(
        "pg_5000_tables_vs_dump",
        "PostgreSQL, 5,000 tables, against `pg_dump`",
        "≥ 0.83 ×",
        operator.ge,
        1 / 1.2,
    ),
    _Row("pg_5000_tables_seconds", "their full backup"),
    _Row("unchanged_seconds", "second backup, nothing changed"),
    _Row("unchanged_added_share", "it adds, of what the backup has", "< 1 %", operator.lt, 0.01),
    _Row("changed_0_1pct_added_share", "0.1 % of the rows changed: adds"),
    _Row("changed_1pct_added_share", "1 % of the rows changed: adds", "< 3 %", operator.lt, 0.03),
    _Row("changed_10pct_added_share", "10 % of the rows changed: adds"),
    _Row("rss_dump", "peak memory of `dump`", "≤ 64 MiB", operator.le, 64 << 20),
    _Row("rss_archive", "peak memory of `archive`", "≤ 256 MiB", operator.le, 256 << 20),
    _Row("rss_upload", "peak memory of `upload`", "≤ 256 MiB", operator.le, 256 << 20),
    _Row("rss_growth", "peak memory, largest against smallest database", "≤ 1.10 ×", operator.le, 1.1),
    _Row(
        "files_full_vs_tar_pipe",
        "full backup of a volume with 100,000 small files and large ones, against"
        " `tar \\| zstd -3 \\| openssl aes-256-ctr \\| sha256sum`",
        "≥ 1.0 ×",
        operator.ge,
        1,
    ),
    _Row("files_full_seconds", "full backup of them"),
    _Row("files_unchanged_vs_tar_pipe", "the next one, nothing changed", "≥ 5 ×", operator.ge, 5),
    _Row("files_unchanged_seconds", "it takes"),
    _Row("files_unchanged_added_share", "it adds, of what the backup has", "< 1 %", operator.lt, 0.01),
    _Row("rss_gather", "peak memory of `gather`", "≤ 64 MiB", operator.le, 64 << 20),
    _Row("small_tenant_seconds", "tenant of 1 MB, `kubectl apply` to Succeeded", "< 5 s", operator.lt, 5),
    _Row("pg_800mb_seconds", "tenant of 800 MB, `kubectl apply` to Succeeded", "< 8 s", operator.lt, 8),
    _Row("missing_database_seconds", "a missing database is reported after", "< 10 s", operator.lt, 10),
    _Row("api_writes_per_backup", "API writes of ours for a small backup", "≤ 8", operator.le, 8),
    _Row("cluster_writes_per_backup", "API writes of the whole cluster for it", "≤ 30", operator.le, 30),
    _Row("idle_writes_per_minute", "API writes of ours in an idle minute", "0", operator.eq, 0),
    _Row("operator_rss", "memory of the operator"),
    _Row("node_drain_seconds", "a slot of 50 tenants with real Jobs, 4 at once, operator killed in it"),
    _Row("node_drain_missed", "tenants it missed", "0", operator.eq, 0),
    _Row("node_drain_doubled", "backups or Jobs it made twice", "0", operator.eq, 0),
    _Row("node_drain_failed", "backups that failed", "0", operator.eq, 0),
    _Row("node_drain_most_at_once", "most at once", "≤ 4", operator.le, 4),
    _Row("drain_seconds", "a slot of 1,000 tenants, 20 at once, operator killed in it; Jobs end at once"),
    _Row("drain_missed", "tenants it missed", "0", operator.eq, 0),
    _Row("drain_doubled", "backups it made twice", "0", operator.eq, 0),
    _Row("drain_most_at_once", "most at once", "≤ 20", operator.le, 20),
    _Row("drain_most_on_a_server", "most at once on one of 20 servers", "≤ 4", operator.le, 4),
    _Row(
        "scale_writes_per_backup",
        "API writes of ours for each, from schedule to Tenant",
        "≤ 8",
        operator.le,
        8,
    ),
    _Row("operator_start_1000_seconds", "start with 1,000 TenantBackups", "< 5 s", operator.lt, 5),
    _Row("start_writes", "API writes of ours in it", "0", operator.eq, 0),
    _Row("operator_start_10k_seconds", "start with 10,000 TenantBackups", "< 30 s", operator.lt, 30),
    _Row("start_writes_10k", "API writes of ours in it", "0", operator.eq, 0),
    _Row("operator_rss_10k", "memory of the operator then", "< 256 MiB", operator.lt, 256 << 20),
    _Row("backup_object_bytes", "a TenantBackup, as the API server sends it", "< 8 KiB", operator.lt, 8192),
    _Row("etcd_bytes_per_backup", "etcd for each"),
)
_RATIOS = {
    "pg_full_vs_openssl_pipe": "full backup\nzstd | openssl | sha256sum",
    "pg_full_vs_gzip": "full backup\ngzip",
    "pg_full_vs_restic": "full backup\nrestic from stdin",
    "pg_restore_vs_pg_restore_j2": "restore\npg_restore -j2",
    "files_full_vs_tar_pipe": "files, full\ntar | zstd | openssl | sha256sum",
    "files_unchanged_vs_tar_pipe": "files, unchanged\ntar | zstd | openssl | sha256sum",
    "mariadb_full_vs_openssl_pipe": "MariaDB, full backup\nzstd | openssl | sha256sum",
    "mariadb_restore_vs_client": "MariaDB, restore\nmariadb <",
    "mysql_full_vs_openssl_pipe": "MySQL, full backup\nzstd | openssl | sha256sum",
    "mysql_restore_vs_client": "MySQL, restore\nmysql <",
}
_INTRODUCTION = """# Performance

`make bench` measured this and wrote this page. A ratio is the rival's time divided by ours, each the best of
several alternating runs on the same machine: above 1 we are faster. Rivals: what people write by hand, and restic.

![Our speed against others](performance.svg)

"""


def write(figures: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write the page and the picture into `folder`."""
    lines = ["| what | measured | target | |", "|---|---|---|---|"]
    for row in _ROWS:
        if row.name in figures:
            value, unit = figures[row.name]["value"], figures[row.name]["unit"]
            lines.append(f"| {row.what} | {shown(value, unit)} | {row.target} | {row.mark(value)} |")
    text = _INTRODUCTION + "\n".join(lines) + f"\n\nMachine: {_machine()}.\n"
    (folder / "performance.md").write_text(text)
    _draw({label: figures[name]["value"] for name, label in _RATIOS.items() if name in figures}, folder)


def _draw(ratios: Mapping[str, float], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.7 * len(ratios)), layout="constrained")
    bars = axes.barh(list(ratios), list(ratios.values()), color="#2f6f9f", height=0.55)
    axes.bar_label(bars, fmt="%.2f ×", padding=4)
    axes.axvline(1, color="#444444", linewidth=1, linestyle="--")
    axes.set_xlabel("rival's seconds / our seconds")
    axes.set_xlim(0, 1.15 * max([1, *ratios.values()]))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "performance.svg", metadata={"Date": None})


def _machine() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} × {found[1] if found else 'processor'}, {memory:.0f} GiB of memory"
