"""A Replace or Merge waits for a person's word that names what is replaced and does not hold for long."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.contract.reasons import Reason

from . import described
from .instants import rfc3339
from .observed import RestoreSeen
from .restored import restores_database, volumes
from .verdicts import Stalled, Verdict

LONGEST = timedelta(hours=24)
SUGGESTED = timedelta(hours=1)
_ADVICE = "stop who uses them, and have room for them beside what is there, which is kept for a while"


def replacing_is_approved(seen: RestoreSeen, now: datetime) -> Verdict | None:
    """Nothing is touched before that."""
    if seen.restore.spec.strategy == "NewDatabase":
        return None
    problem = _problem(seen, now)
    if problem is None:
        return None
    return Stalled(
        Reason.APPROVAL_PENDING, f"{problem}; approve it with: {_command(seen)}", _until_valid(seen, now)
    )


def _problem(seen: RestoreSeen, now: datetime) -> str | None:
    replaced, approval = _replaced(seen), seen.restore.spec.approval
    if approval is None:
        return _what_happens(seen)
    confirm = approval.confirm
    live, files = replaced.get("database"), replaced.get("files", [])
    if confirm.database != live:
        told = f"the live database is {live}" if live else "no database is replaced"
        return f"approval.confirm.database is {confirm.database or 'not set'}, but {told}"
    if sorted(confirm.files) != files:
        told = f"files of {', '.join(files)} are replaced" if files else "no files are replaced"
        return f"approval.confirm.files is {', '.join(confirm.files) or 'not set'}, but {told}"
    if confirm.expires <= now:
        return f"the approval ran out at {rfc3339(confirm.expires)}"
    if confirm.expires > now + LONGEST:
        return "approval.confirm.expires is more than 24 hours ahead"
    return None


def _what_happens(seen: RestoreSeen) -> str:
    assert seen.tenant
    replaced, live = _replaced(seen), described.database(seen.tenant).name
    if seen.restore.spec.strategy == "Merge":
        where = f"among the files of {_claims(seen)}, and in the place of those of the same name"
        return f"Merge will put what select.files means {where}: {_ADVICE}"
    words = [f"swap database {live} for the restored one"] if "database" in replaced else []
    if "files" in replaced:
        words.append(f"replace all files of {_claims(seen)}")
        left = f" and leave database {live} as it is" if live and "database" not in replaced else ""
        return f"Replace will {' and '.join(words)}{left}: {_ADVICE}"
    left = " and leave its files as they are" if seen.tenant.spec.files else ""
    return f"Replace will {words[0]}{left}"


def _claims(seen: RestoreSeen) -> str:
    return ", ".join(f"{one.name} (claim {one.claim})" for one in volumes(seen))


def _replaced(seen: RestoreSeen) -> dict[str, Any]:
    """Return what approval.confirm has to name."""
    assert seen.tenant
    database = {"database": described.database(seen.tenant).name} if restores_database(seen) else {}
    files = sorted(volume.name for volume in volumes(seen))
    return database | ({"files": files} if files else {})


def _command(seen: RestoreSeen) -> str:
    metadata = seen.restore.metadata
    # The moment is the shell's: a fixed one would change the message, and so the status, all the time.
    expires = f"$(date -u -d '+{SUGGESTED.seconds // 3600} hour' +%FT%TZ)"
    document = {"spec": {"approval": {"confirm": {**_replaced(seen), "expires": expires}}}}
    patch = json.dumps(document, separators=(",", ":"), ensure_ascii=False).replace('"', '\\"')
    return f'kubectl -n {metadata.namespace} patch tenantrestore {metadata.name} --type merge -p "{patch}"'


def _until_valid(seen: RestoreSeen, now: datetime) -> float | None:
    """An approval too far ahead becomes valid by waiting."""
    approval = seen.restore.spec.approval
    if approval is None or approval.confirm.expires <= now + LONGEST:
        return None
    return (approval.confirm.expires - now - LONGEST).total_seconds() + 1
