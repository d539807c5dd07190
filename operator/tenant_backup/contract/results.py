"""How a stage answers: one JSON document of at most 2 KiB in its termination message.

Success: {"ok": true, "facts": {…}}; failure: {"ok": false, "reason": …, "message": …, "retriable": …}.
Progress is one JSON line on standard output every few seconds:
{"progress": {"phase": …, "percent": …, "bytesRead": …, "bytesTotal": …}}.
A list that is too long for the message goes to standard output, one numbered JSON line for each item; the
message then has their number and the SHA-256 of all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .paths import TERMINATION_MESSAGE_LIMIT
from .reasons import Failure, Reason

_INLINE = 1200  # bytes of a list beside which other facts still fit


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


def listed(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts that stand for `items`: themselves when they are short, else what they are known by.

    Those that are not in the facts are printed.
    """
    if len(_dump({"items": list(items)})) <= _INLINE:
        return {"items": list(items)}
    # Plain ASCII: whoever reads the log must find the lines that were written.
    lines = [json.dumps({"line": number, "item": item}) for number, item in enumerate(items, 1)]
    print("\n".join(lines), flush=True)
    return {"lines": len(lines), "sha256": _sha256(lines)}


def listed_items(facts: Mapping[str, Any], log: Iterable[str]) -> list[dict[str, Any]]:
    """Return what `listed` was given; `log` is what the container wrote. Raises ValueError if not all."""
    if "items" in facts:
        return list(facts["items"])
    lines = [line for line in log if line.startswith('{"line":')]
    if len(lines) != facts.get("lines") or _sha256(lines) != facts.get("sha256"):
        raise ValueError(f"the log has {len(lines)} of {facts.get('lines')} lines, or other ones")
    return [json.loads(line)["item"] for line in lines]


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def progress_line(**values: Any) -> str:
    """Return one progress line for standard output, without the newline."""
    return _dump({"progress": values}).decode()


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
