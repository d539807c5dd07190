"""How a stage answers: one JSON document of at most 2 KiB in its termination message.

Success: {"ok": true, "facts": {…}}; failure: {"ok": false, "reason": …, "message": …, "retriable": …}.
Progress is one JSON line on standard output every few seconds:
{"progress": {"phase": …, "percent": …, "bytesRead": …, "bytesTotal": …}}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .paths import TERMINATION_MESSAGE_LIMIT
from .reasons import Failure, Reason


@dataclass(frozen=True)
class Result:
    """What a finished container says. `facts` is empty on failure."""

    ok: bool
    facts: dict[str, Any] = field(default_factory=dict)
    reason: Reason = Reason.SUCCEEDED
    message: str = ""
    retriable: bool = False

    @classmethod
    def of(cls, failure: Failure) -> Result:
        """The result of a stage that ended with `failure`."""
        return cls(False, {}, failure.reason, failure.message, failure.retriable)


def encode(result: Result) -> bytes:
    """Return the termination message, at most TERMINATION_MESSAGE_LIMIT bytes of UTF-8.

    A message that is too long is cut; facts that are too long are a bug and raise ValueError.
    """
    if result.ok:
        text = _dump({"ok": True, "facts": result.facts})
        if len(text) > TERMINATION_MESSAGE_LIMIT:
            raise ValueError(f"facts of {len(text)} bytes do not fit a termination message")
        return text
    message = result.message
    while True:
        text = _dump(
            {"ok": False, "reason": result.reason, "message": message, "retriable": result.retriable}
        )
        if len(text) <= TERMINATION_MESSAGE_LIMIT:
            return text
        message = message[: len(message) - (len(text) - TERMINATION_MESSAGE_LIMIT) // 4 - 2] + "…"


def decode(text: str) -> Result | None:
    """Read a termination message; None when it is not one of ours (killed, image without us)."""
    try:
        document = json.loads(text)
        if document["ok"]:
            return Result(True, dict(document["facts"]))
        return Result(
            False, {}, Reason(document["reason"]), str(document["message"]), bool(document["retriable"])
        )
    except (ValueError, KeyError, TypeError):
        return None


def progress_line(**values: Any) -> str:
    """Return one progress line for standard output, without the newline."""
    return _dump({"progress": values}).decode()


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
