"""The audit trail: one line for whatever happened to somebody's data: made, restored, verified, deleted.

Written before the end is recorded in status, so that a crash may repeat a line but never lose one;
the object's UID tells repeated lines apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger("tenant_backup.audit")


def audit(record: Mapping[str, Any]) -> None:
    """Log the record as fields of one line."""
    _log.info(
        "%s of %s ended: %s",
        record.get("event"),
        record.get("tenant"),
        record.get("reason"),
        extra={"fields": {"audit": dict(record)}},
    )
