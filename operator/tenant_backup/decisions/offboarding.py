"""What becomes of a Tenant's backups when it is deleted, and when only their schedule is.

With `offboarding: Delete` our finalizer is on the Tenant from the beginning: it goes when its last backup
is gone. Each backup goes as its own `deletionPolicy` says, and what somebody holds stays, and the Tenant with
it, until a person has settled that. A namespace that goes away is never held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from tenant_backup.api import Tenant
from tenant_backup.api.references import FINALIZER, LABEL_HOLD
from tenant_backup.contract.reasons import Reason

from .aspects import Aspect
from .audits import deletion
from .conditions import Fact, conditions
from .observed import TenantSeen
from .plan import Action, Announce, HoldData, Plan, ReleaseData
from .summaries import BackupSummary
from .verdicts import Stalled, Verdict, Waiting

AT_ONCE = 20  # backups of one Tenant that are being deleted; each of them costs a Job
LOOK_AGAIN = 10.0  # seconds; a backup that is gone wakes us earlier
NAMED = 20  # names in one message


def holding(tenant: Tenant) -> tuple[Action, ...]:
    """Return what makes the finalizer as `spec.offboarding` wants it."""
    is_held, wanted = FINALIZER in tenant.metadata.finalizers, tenant.spec.offboarding == "Delete"
    if is_held == wanted:
        return ()
    return (HoldData(),) if wanted else (ReleaseData(),)


def decide_offboarding(seen: TenantSeen, now: datetime) -> Plan:
    """Return the next step of deleting a Tenant; `seen.backups` were read afresh."""
    if FINALIZER not in seen.tenant.metadata.finalizers:
        return Plan()  # its backups stay, and so do the keys: without them backups are worth less
    if seen.terminating:
        return _let_go(seen, "its namespace or its kind is being deleted")
    if seen.tenant.spec.offboarding == "Retain":
        return _let_go(seen, "spec.offboarding is Retain")
    if not seen.backups:
        told = Announce("Normal", Reason.DATA_DELETED, "no TenantBackup of the Tenant is left")
        return Plan((told, ReleaseData()))
    removing = [backup for backup in seen.backups if backup.removing]
    free = [backup for backup in seen.backups if not backup.removing and not backup.held]
    going = sorted(free, key=lambda backup: backup.name)[: max(AT_ONCE - len(removing), 0)]
    verdict = _verdict(seen.backups)
    generation = seen.tenant.metadata.generation
    status = dict(seen.status) | {
        "observedGeneration": generation,
        "conditions": conditions("Ready", verdict, seen.status, generation, now),
    }
    deletions = (step for backup in going for step in _deletion(backup))
    return Plan((*_told(going), *deletions), status, verdict.retry_in)


def unpruned(seen: TenantSeen, _now: datetime) -> Aspect:
    """Say that nobody prunes what a schedule made that is gone."""
    left = Counter(
        backup.schedule
        for backup in seen.backups
        if backup.schedule not in ("", *seen.schedules) and backup.state != "Expired" and not backup.removing
    )
    if not left:
        return Aspect()
    which = ", ".join(f"{count} of {schedule}" for schedule, count in sorted(left.items())[:NAMED])
    message = (
        f"nobody prunes TenantBackups whose BackupSchedule does not exist any more: {which}; delete those you"
        " do not need, or create a BackupSchedule of that name"
    )
    return Aspect((Fact("Unpruned", "True", Reason.SCHEDULE_NOT_FOUND, message),))


def _let_go(seen: TenantSeen, why: str) -> Plan:
    message = f"{len(seen.backups)} TenantBackups of the Tenant and their data stay: {why}"
    return Plan((Announce("Normal", Reason.DATA_RETAINED, message), ReleaseData()))


def _verdict(backups: Iterable[BackupSummary]) -> Verdict:
    backups = tuple(backups)
    held = sorted(backup.name for backup in backups if backup.held)
    if len(held) < len(backups):
        message = f"{len(backups)} TenantBackups of the Tenant are being deleted, as spec.offboarding says"
        return Waiting(Reason.RUNNING, message, LOOK_AGAIN)
    message = (
        f"TenantBackup {', '.join(held[:NAMED])} is held: remove label {LABEL_HOLD} (or the TenantRestore"
        " that is to read it), or set spec.offboarding of this Tenant to Retain"
    )
    return Stalled(Reason.HELD, message, LOOK_AGAIN)


def _told(going: Iterable[BackupSummary]) -> tuple[Announce, ...]:
    retained = [backup.name for backup in going if backup.retained]
    if not retained:
        return ()
    message = f"the data of {', '.join(retained)} stays in the store: deletionPolicy is Retain"
    return (Announce("Warning", Reason.DATA_RETAINED, message),)


def _deletion(backup: BackupSummary) -> tuple[Action, ...]:
    return deletion("offboarding", backup, Reason.DATA_RETAINED if backup.retained else Reason.DATA_DELETED)
