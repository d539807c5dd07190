"""When nothing can be decided: the object cannot be read, or the API server refuses what was planned."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .conditions import Headline, conditions, others
from .summaries import FINISHED
from .verdicts import Verdict


def blocked(
    headline: Headline, verdict: Verdict, status: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    """Return the status that says why; how something finished stays true."""
    if status.get("state") in (*FINISHED, "Undone"):
        return dict(status)
    found = [*conditions(headline, verdict, status, generation, now), *others(status)]
    known = "Pending" if "queue" in status else status.get("state", "Pending")
    state = {"state": known} if headline == "Succeeded" else {}
    kept = {key: value for key, value in status.items() if key != "queue"}
    return {**kept, **state, "observedGeneration": generation, "conditions": found}
