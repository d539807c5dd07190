"""Secrets never reach a log. The operator reads none; this is the net under the rope."""

from __future__ import annotations

import re

HIDDEN = "[redacted]"
_PATTERNS = (
    re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE),
    re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"),  # user:password@host
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(
        r"""(?ix)
        (?<=password)(?P<q1>["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;&}]+)
        """
    ),
    re.compile(r"""(?i)(?<=secretaccesskey)(?P<q1>["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;&}]+)"""),
    re.compile(r"""(?i)(?<=secret_access_key)(?P<q1>["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;&}]+)"""),
)


def redact(text: str) -> str:
    """Return `text` with everything that looks like a credential replaced."""
    for pattern in _PATTERNS:
        text = pattern.sub(_hide, text)
    return text


def _hide(match: re.Match[str]) -> str:
    return match.groupdict().get("q1", "") + HIDDEN
