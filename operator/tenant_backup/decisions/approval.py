"""A Replace waits for a person's word that names the live database and does not hold for long."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from tenant_backup.contract.reasons import Reason

from . import described
from .instants import rfc3339
from .observed import RestoreSeen
from .verdicts import Stalled, Verdict

LONGEST = timedelta(hours=24)
SUGGESTED = timedelta(hours=1)


def replacing_is_approved(seen: RestoreSeen, now: datetime) -> Verdict | None:
    """Nothing is touched before that."""
    if seen.restore.spec.strategy != "Replace":
        return None
    problem = _problem(seen, now)
    if problem is None:
        return None
    return Stalled(
        Reason.APPROVAL_PENDING, f"{problem}; approve it with: {_command(seen)}", _until_valid(seen, now)
    )


def _problem(seen: RestoreSeen, now: datetime) -> str | None:
    assert seen.tenant
    live, approval = described.database(seen.tenant).name, seen.restore.spec.approval
    if approval is None:
        files = " and leave its files as they are" if seen.tenant.spec.files else ""
        return f"Replace will swap database {live} for the restored one{files}"
    confirm = approval.confirm
    if confirm.database != live:
        return f"approval.confirm.database is {confirm.database}, but the live database is {live}"
    if confirm.expires <= now:
        return f"the approval ran out at {rfc3339(confirm.expires)}"
    if confirm.expires > now + LONGEST:
        return "approval.confirm.expires is more than 24 hours ahead"
    return None


def _command(seen: RestoreSeen) -> str:
    assert seen.tenant
    metadata, live = seen.restore.metadata, described.database(seen.tenant).name
    # The moment is the shell's: a fixed one would change the message, and so the status, all the time.
    expires = f"$(date -u -d '+{SUGGESTED.seconds // 3600} hour' +%FT%TZ)"
    document = {"spec": {"approval": {"confirm": {"database": live, "expires": expires}}}}
    patch = json.dumps(document, separators=(",", ":"), ensure_ascii=False).replace('"', '\\"')
    return f'kubectl -n {metadata.namespace} patch tenantrestore {metadata.name} --type merge -p "{patch}"'


def _until_valid(seen: RestoreSeen, now: datetime) -> float | None:
    """An approval too far ahead becomes valid by waiting."""
    approval = seen.restore.spec.approval
    if approval is None or approval.confirm.expires <= now + LONGEST:
        return None
    return (approval.confirm.expires - now - LONGEST).total_seconds() + 1
