"""Run the bench, or a part of it: ONLY=pg, mariadb, tables, repeats, memory, files, …; SIZE in GB of rows."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Collection

from hack.lab.kubectl import ROOT
from hack.localcluster import builds

from . import cluster, crowd, files, mysql, page, postgresql, scale
from .figures import Figures

ALONE = (
    "pg",
    *(family.key for family in mysql.FAMILIES),
    "tables",
    "repeats",
    "memory",
    "files",
    "scale",
)  # with nothing else on the machine
ON_THE_CLUSTER = ("cluster", "crowd")
PARTS = (*ALONE, *ON_THE_CLUSTER)


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument(
        "--size", type=float, default=0.8, help="GB of rows in the large database (default 0.8)"
    )
    parser.add_argument("--runs", type=int, default=3, help="alternating runs, the best counts (default 3)")
    parser.add_argument("--tenants", type=int, default=1000, help="due at once in part scale (default 1000)")
    options = parser.parse_args()
    parts = [options.only] if options.only else PARTS
    figures = Figures()
    if set(parts) & set(ALONE):
        subprocess.run([sys.executable, "-m", "hack.localcluster", "down"], cwd=ROOT, check=True)
        builds.ensure((builds.ETCD, builds.KUBERNETES))
        _alone(figures, parts, options)
    if set(parts) & set(ON_THE_CLUSTER):
        subprocess.run(["make", "-s", "install"], cwd=ROOT, check=True)
    if "cluster" in parts:
        cluster.measure(figures, options.size, options.runs)
    if "crowd" in parts:
        crowd.measure(figures)
    page.write(figures.write(ROOT / "build" / "bench.json"), ROOT / "docs")
    print("written to build/bench.json and docs/performance.md")
    return 0


def _alone(figures: Figures, parts: Collection[str], options: argparse.Namespace) -> None:
    """Measure what needs no cluster."""
    size, runs = options.size, options.runs
    if "pg" in parts:
        postgresql.measure_full_and_restore(figures, size, runs)
    for family in mysql.FAMILIES:
        if family.key in parts:
            mysql.measure(figures, family, size, runs)
    if "tables" in parts:
        postgresql.measure_many_tables(figures, runs)
        for family in mysql.FAMILIES:
            mysql.measure_many_tables(figures, family, runs)
    if "repeats" in parts:
        postgresql.measure_repeats(figures, size, runs)
    if "memory" in parts:
        postgresql.measure_memory(figures, [size / 4, size, 5 * size])
    if "files" in parts:
        files.measure(figures, size, runs)
    if "scale" in parts:
        scale.measure(figures, options.tenants)


if __name__ == "__main__":
    sys.exit(main())
