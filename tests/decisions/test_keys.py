"""Who can read a backup, what is said about it, and what happens to keys: decided without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.api import BackupStore, Tenant
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup as backups
from tenant_backup.decisions import restore as restores
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions.plan import Announce, MakeKeys, Plan, Run
from tests.decisions.objects import (
    FACTS,
    NOW,
    RECIPIENT,
    backup_seen,
    condition,
    document,
    job,
    kinds,
    restore_seen,
    succeeded,
    summary,
    tenant,
    tenant_seen,
)

PLATFORM_KEY, OTHER = "age1" + "p" * 58, "age1" + "z" * 58
NONE = {"mode": "None"}
DATABASE = {"database": {"version": "17.2", "sizeBytes": 12345, "tables": 7}}
FIRST = (summary("acme-1"),)


def store_with(**fields: Any) -> BackupStore:
    """BackupStore prod with more in its spec."""
    spec = {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}, **fields}
    return BackupStore.model_validate(document("BackupStore", "prod", spec))


def told(owner: Tenant | None = None, **store: Any) -> contract.Backup:
    """What the Job of a new backup is told."""
    plan = backups.decide(backup_seen(tenant=owner or tenant(), store=store_with(**store)), NOW)
    (run,) = [action for action in plan.actions if isinstance(action, Run)]
    assert isinstance(run.job, contract.Backup)
    return run.job


def announced(plan: Plan, reason: Reason) -> list[str]:
    """The messages of the Events with this reason."""
    return [one.message for one in plan.actions if isinstance(one, Announce) and one.reason is reason]


def test_the_platform_reads_along_after_the_tenants_own_recipients() -> None:
    """Each once, whoever names it."""
    assert told(recipients=[PLATFORM_KEY, RECIPIENT, OTHER]).recipients == [RECIPIENT, PLATFORM_KEY, OTHER]


def test_the_platforms_key_alone_is_not_the_tenants() -> None:
    """Nobody of the tenant could restore."""
    seen = backup_seen(tenant=tenant(encryption={}), store=store_with(recipients=[PLATFORM_KEY]))
    plan = backups.decide(seen, NOW)
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.KEY_MISSING


def test_without_encryption_nobody_is_encrypted_for() -> None:
    """Not even the platform: half of it would be neither the one nor the other."""
    described = told(tenant(encryption=NONE), recipients=[PLATFORM_KEY])
    assert (described.encryption, described.recipients) == ("None", [])
    assert told().encryption == "Age"


def test_a_tenant_without_encryption_is_ready_and_says_so() -> None:
    """In its Ready condition, which is no warning."""
    done = job("preflight", generation=1, outcome=succeeded(DATABASE))
    plan = tenants.decide(tenant_seen(tenant(encryption=NONE), jobs=(done,)), NOW)
    assert plan.status
    assert kinds(plan.status) == {"Ready"}
    assert "not encrypted" in condition(plan.status, "Ready")["message"]
    sealed = tenants.decide(tenant_seen(jobs=(done,)), NOW)
    assert sealed.status
    assert "not encrypted" not in condition(sealed.status, "Ready")["message"]


def test_a_backup_without_encryption_says_so() -> None:
    """In its status and in the Event."""
    done = job(outcome=succeeded({**FACTS, "encryption": "None"}))
    plan = backups.decide(backup_seen(jobs=(done,), tenant=tenant(encryption=NONE)), NOW)
    assert plan.status
    assert plan.status["encryption"] == "None"
    (message,) = announced(plan, Reason.BACKUP_SUCCEEDED)
    assert "not encrypted" in message
    assert message == condition(plan.status, "Succeeded")["message"]


def test_a_backup_without_encryption_is_restored_without_identity() -> None:
    """By what the backup is, whatever the Tenant says today."""
    owner = tenant(encryption={"recipients": [RECIPIENT]})
    facts = {"state": "Succeeded", "health": "Healthy", **FACTS}
    readable = restores.decide(restore_seen(tenant=owner, backup_status={**facts, "encryption": "None"}), NOW)
    assert any(isinstance(action, Run) for action in readable.actions)
    sealed = restores.decide(restore_seen(tenant=owner, backup_status=facts), NOW)
    assert not any(isinstance(action, Run) for action in sealed.actions)
    assert sealed.status
    assert condition(sealed.status, "Stalled")["reason"] == Reason.KEY_MISSING


def test_keys_that_were_deleted_are_never_made_anew() -> None:
    """Every backup that is there would look forged; the message says how they come back."""
    done = job("preflight", generation=1, outcome=succeeded(DATABASE))
    status = {"keysReady": True, "keySecret": "acme-keys-0123456789", "signingKey": "ab" * 32}
    for jobs in ((), (done,)):
        plan = tenants.decide(tenant_seen(keys="Gone", status=status, jobs=jobs), NOW)
        assert not any(isinstance(action, MakeKeys | Run) for action in plan.actions)
        assert plan.status
        assert plan.status["signingKey"] == "ab" * 32
        assert condition(plan.status, "Stalled")["reason"] == Reason.KEY_MISSING
        message = condition(plan.status, "Ready")["message"]
        assert "acme-keys-0123456789" in message
        assert "tenant-backup recover-keys" in message
        assert plan.retry_in  # nobody tells us when it is back


@pytest.mark.parametrize(
    ("encryption", "words"),
    [(None, ("identity", "recovery-sheet")), (NONE, ("not encrypted", "recovery-sheet"))],
)
def test_the_first_backup_tells_what_to_keep(
    encryption: dict[str, Any] | None, words: tuple[str, ...]
) -> None:
    """Once: from the moment there is something to lose."""
    owner = tenant(encryption=encryption)
    first = tenants.decide(tenant_seen(owner, backups=FIRST), NOW)
    (message,) = announced(first, Reason.FIRST_BACKUP)
    assert all(word in message for word in words)
    second = tenants.decide(tenant_seen(owner, status=first.status, backups=(*FIRST, summary("acme-2"))), NOW)
    assert announced(second, Reason.FIRST_BACKUP) == []
    assert announced(tenants.decide(tenant_seen(owner), NOW), Reason.FIRST_BACKUP) == []


def test_rates_reach_the_job_in_bytes_per_second() -> None:
    """And without them there is no limit."""
    limited = told(tenant(readRate="1.5Mi"), limits={"uploadRate": "500k"})
    assert (limited.read_rate, limited.upload_rate) == (1_572_864, 500_000)
    assert (told().read_rate, told().upload_rate) == (0, 0)


EARLIER = "cd" * 32


def of_two_lives(*, keys: bool = True) -> Tenant:
    """Tenant acme, made again after its cluster was lost."""
    encryption = {"recipients": [RECIPIENT], "identitySecretRef": {"name": "acme-id"}}
    return tenant(keys=keys, encryption=encryption | {"trustedSigningKeys": [f"ed25519:{EARLIER}"]})


def test_a_restore_believes_the_keys_that_a_person_named_too() -> None:
    """They come from the recovery sheet, by way of the Tenant; never from the store."""
    plan = restores.decide(restore_seen(tenant=of_two_lives()), NOW)
    (run,) = [action for action in plan.actions if isinstance(action, Run)]

    assert isinstance(run.job, contract.Restore)
    assert (run.job.signing_key, run.job.trusted_keys) == ("ab" * 32, [EARLIER])


def test_keys_that_were_brought_back_are_used_and_none_made() -> None:
    """Backups go on under the signature they had."""
    seen = tenant_seen(of_two_lives(keys=False), keys="Absent", status={}, recovered=EARLIER)
    plan = tenants.decide(seen, NOW)

    assert not [action for action in plan.actions if isinstance(action, MakeKeys)]
    assert plan.status
    assert (plan.status["signingKey"], plan.status["keysReady"]) == (EARLIER, True)
    assert plan.status["keySecret"].startswith("acme-keys-")


def test_without_them_new_ones_are_made() -> None:
    """Old backups can be restored all the same."""
    plan = tenants.decide(tenant_seen(of_two_lives(keys=False), keys="Absent", status={}), NOW)

    assert [action for action in plan.actions if isinstance(action, MakeKeys)]
