"""The figures a run has found: printed as one table, written as build/bench.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Unit = Literal["ratio", "share", "bytes", "seconds", "count"]


@dataclass
class Figures:
    """A flat map from name to value, unit and samples."""

    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self, name: str, unit: Unit, samples: list[float], best: Callable[[list[float]], float] = min
    ) -> None:
        """Add one figure and print it; `best` chooses the value among the samples."""
        value = best(samples)
        self.found[name] = {"value": value, "unit": unit, "samples": samples}
        print(f"  {name:34} {shown(value, unit):>12}   of {len(samples)}", flush=True)

    def add_ratio(self, name: str, rival: list[float], ours: list[float]) -> None:
        """Add rival time / our time, each the minimum of its runs: bigger is better for us."""
        samples = [their / our for their, our in zip(rival, ours, strict=True)]
        self.add(name, "ratio", samples, lambda _: min(rival) / min(ours))

    def write(self, path: Path) -> dict[str, dict[str, Any]]:
        """Write all figures and return them; those of an earlier run that this one did not measure stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | self.found, indent=1, sort_keys=True) + "\n")
        return {**before, **self.found}


def shown(value: float, unit: str) -> str:
    """A figure for people."""
    match unit:
        case "ratio":
            return f"{value:.2f} ×"
        case "share":
            return f"{value:.2%}"
        case "bytes":
            return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"
        case "seconds":
            return f"{value:.2f} s"
    return f"{value:.0f}"
