"""Which servers this engine knows, by the version they say they are."""

from __future__ import annotations

import re

from tenant_backup.contract.reasons import Failure, Reason

from .dialects import Dialect

_OTHERS = ("MariaDB", "TiDB")  # they speak the protocol of MySQL, and are none


def supported(said: str, dialect: Dialect) -> str:
    """Return the version as people write it, such as 10.11.6. Raises UNSUPPORTED_CONTENT for others."""
    # Put before it for old replicas, which did not know such high numbers.
    found = re.search(r"\d+\.\d+\.\d+", said.removeprefix("5.5.5-"))
    family = next((name for name in _OTHERS if name in said), "MySQL")
    if family != dialect.engine or not found:
        message = f"spec.database.engine is {dialect.engine}, and the server says it is {said}"
        advice = f"that is {family}; name the engine that it is, if that is one we know"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}, {advice}")
    if major(found[0]) < dialect.oldest:
        oldest = ".".join(map(str, dialect.oldest))
        message = f"the server is {dialect.engine} {found[0]}, and {oldest} is the oldest that can be backed"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message} up; update it")
    return found[0]


def major(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version: what decides about compatibility."""
    first, second = version.split(".")[:2]
    return int(first), int(second)
