"""Secrets never reach a log. The operator reads none; this is the net under the rope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[redacted]"
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"',;&}]+)"""
_PATTERNS = (
    re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),  # user:password@host
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(rf"(?i)(?P<name>password|secret_?access_?key)(?P<sign>[\"']?\s*[=:]\s*){_VALUE}"),
)


def redact(text: str) -> str:
    """Return `text` with everything that looks like a credential replaced."""
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def redacted(value: Any) -> Any:
    """Return a document with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(key): redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def _hide(match: re.Match[str]) -> str:
    kept = match.groupdict()
    return kept.get("name", "") + kept.get("sign", "") + HIDDEN
