"""A large PostgreSQL database against what people write by hand, on this machine, no cluster."""

from __future__ import annotations

from .big import Big, big_database, with_script
from .figures import Figures
from .stages import TABLES, many_tables, seconds

_PIPE = "pg_dump | zstd -3 -c | openssl enc -aes-256-ctr -K $KEY -iv $IV | sha256sum"
_GZIP = "pg_dump | gzip > /dev/null"
_RESTIC = "rm -rf restic; restic -q -r restic init; pg_dump | restic -q -r restic backup --stdin"
_RIVALS = {"openssl_pipe": _PIPE, "gzip": _GZIP, "restic": _RESTIC}
_CHANGES = {"0_1pct": 0.001, "1pct": 0.01, "10pct": 0.1}
_STAGES = ("dump", "archive", "upload")


def measure_full_and_restore(figures: Figures, size: float, runs: int) -> None:
    """Full backup against three rivals, restore against pg_restore, alternately."""
    with big_database(size) as big:
        _full(big, figures, runs)
        _restore(big, figures, runs)


def measure_repeats(figures: Figures, size: float, runs: int) -> None:
    """What a second backup adds, and how long it takes, after so many rows changed."""
    with big_database(size) as big:
        big.back_up("Full")
        taken = [seconds(lambda: big.back_up("Incremental")) for _ in range(runs)]
        figures.add("unchanged_seconds", "seconds", taken)
        figures.add("unchanged_added_share", "share", [big.added / big.stored])
        for name, share in _CHANGES.items():
            big.change(share)
            figures.add(f"changed_{name}_seconds", "seconds", [seconds(lambda: big.back_up("Incremental"))])
            figures.add(f"changed_{name}_added_share", "share", [big.added / big.stored])


def measure_many_tables(figures: Figures, runs: int) -> None:
    """A database of very many small tables, against pg_dump."""
    print(f"PostgreSQL: creating {TABLES} tables …", flush=True)
    with with_script(many_tables("timestamp")) as big:
        ours, theirs = [], []
        for _ in range(runs):
            theirs.append(seconds(lambda: big.shell("pg_dump > /dev/null")))
            ours.append(seconds(lambda: big.back_up("Full")))
    figures.add("pg_5000_tables_seconds", "seconds", ours)
    figures.add_ratio("pg_5000_tables_vs_dump", theirs, ours)


def measure_memory(figures: Figures, sizes: list[float]) -> None:
    """Peak memory of each stage, at the largest size, and how it grows from the smallest."""
    peaks: list[dict[str, float]] = []
    for size in sizes:
        with big_database(size) as big:
            ended = big.back_up("Full")
            peaks.append({stage: float(ended[stage].peak_rss) for stage in _STAGES})
    for stage in _STAGES:
        figures.add(f"rss_{stage}", "bytes", [peak[stage] for peak in peaks], lambda samples: samples[-1])
    growth = max(peaks[-1][stage] / peaks[0][stage] for stage in _STAGES)
    figures.add("rss_growth", "ratio", [growth])


def _full(big: Big, figures: Figures, runs: int) -> None:
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in _RIVALS}
    for _ in range(runs):
        for name, command in _RIVALS.items():
            theirs[name].append(seconds(lambda command=command: big.shell(command)))  # type: ignore[misc]
        ours.append(seconds(lambda: big.back_up("Full")))
    figures.add("pg_full_seconds", "seconds", ours)
    figures.add("pg_full_bytes_per_second", "bytes", [big.logical / min(ours)])
    for name, taken in theirs.items():
        figures.add_ratio(f"pg_full_vs_{name}", taken, ours)


def _restore(big: Big, figures: Figures, runs: int) -> None:
    big.shell("pg_dump -Fc -Z 3 -f big.dump")
    ours, theirs, analyzed = [], [], []
    for run in range(runs):
        ours.append(seconds(lambda run=run: big.restore(f"ours_{run}")))  # type: ignore[misc]
        big.drop(f"ours_{run}")
        theirs.append(
            seconds(
                lambda: big.shell("PGUSER=postgres createdb -O big theirs; pg_restore -j2 -d theirs big.dump")
            )
        )
        analyze = seconds(lambda: big.shell("vacuumdb -q --analyze-only -j2 -d theirs"))
        analyzed.append(theirs[-1] + analyze)
        big.drop("theirs")
    figures.add("pg_restore_seconds", "seconds", ours)
    figures.add_ratio("pg_restore_vs_pg_restore_j2", theirs, ours)
    figures.add_ratio("pg_restore_vs_restore_and_analyze", analyzed, ours)
