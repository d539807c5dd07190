"""Run the bench, or a part of it: ONLY=pg or ONLY=cluster, SIZE in GB of rows."""

from __future__ import annotations

import argparse
import sys

from hack.lab.kubectl import ROOT

from .figures import Figures


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=["pg", "cluster"], help="one part")
    parser.add_argument(
        "--size", type=float, default=0.8, help="GB of rows in the large database (default 0.8)"
    )
    parser.add_argument("--runs", type=int, default=3, help="alternating runs, the best counts (default 3)")
    options = parser.parse_args()
    figures = Figures()
    if options.only in {None, "pg"}:
        from .postgresql import measure

        measure(figures, options.size, options.runs)
    if options.only in {None, "cluster"}:
        from .cluster import measure as measure_cluster

        measure_cluster(figures, options.runs)
    figures.write(ROOT / "build" / "bench.json")
    print("written to build/bench.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
