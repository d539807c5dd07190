"""Which servers this engine knows, by the version they say they are."""

from __future__ import annotations

import re

from tenant_backup.contract.reasons import Failure, Reason

_OLDEST = (10, 11)


def supported(said: str) -> str:
    """Return the version as people write it, such as 10.11.6. Raises UNSUPPORTED_CONTENT for others."""
    # Put before it for old replicas, which did not know such high numbers.
    found = re.search(r"\d+\.\d+\.\d+", said.removeprefix("5.5.5-"))
    if "MariaDB" not in said or not found:
        message = f"spec.database.engine is MariaDB, and the server says it is {said}; it has to be a MariaDB"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}, MySQL cannot be backed up yet")
    if major(found[0]) < _OLDEST:
        message = (
            f"the server is MariaDB {found[0]}, and 10.11 is the oldest that can be backed up; update it"
        )
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    return found[0]


def major(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version: what decides about compatibility."""
    first, second = version.split(".")[:2]
    return int(first), int(second)
