"""What `upload` reads again right after the commit, and what it leaves to a Job of its own."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from tenant_backup.archive.manifest import CataloguePlace, parse, sign
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.contract.reasons import ExitCode
from tenant_backup.stages.verification import is_due
from tenant_backup.stores.base import digest_of

from .site import KEYS, OLDER_LIST, Site, manifest_of, packs
from .test_upload_stage import upload_all


def older(day: date, *, due: bool) -> tuple[bytes, str]:
    """A manifest of that day that needs an older list, which is due then or not; and the list's name."""
    list_id = next(
        name for number in range(7, 14) if is_due(name := f"{number:08x}" + "0" * 24, day.toordinal()) is due
    )
    digest = digest_of(OLDER_LIST)
    ref = ObjectRef(list_id, digest.length, digest.sha256, 20)
    manifest = parse(manifest_of())
    times = dataclasses.replace(manifest.times, started=f"{day}T14:30:25Z")
    place = CataloguePlace(list_id, 0, 1)
    changed = dataclasses.replace(manifest, lists=(ref,), catalogue=place, times=times)
    return sign(changed, KEYS.signing), f"lists/{list_id}"


@pytest.mark.parametrize(("due", "health"), [(True, "Corrupt"), (False, "Healthy")])
def test_older_packs_are_read_again_when_it_is_their_day(on_volume: Site, due: bool, health: str) -> None:
    """Small backups too: else what they refer to would never be looked at."""
    manifest, name = older(date(2024, 1, 15), due=due)
    bad = bytes(reversed(OLDER_LIST))
    on_volume.store().put(name, bad, digest_of(bad))
    ended = upload_all(on_volume, packs(2), manifest)

    assert ended.code == ExitCode.SUCCESS
    assert ended.result.facts["health"] == health
    assert on_volume.names("bad") == ([name.replace("lists", "bad")] if due else [])


def test_a_large_backup_is_not_kept_waiting_for_its_verification(on_volume: Site) -> None:
    """A Job of its own reads it; until then nobody says Healthy."""
    ended = upload_all(on_volume, packs(3, 24 << 20), manifest_of())

    assert ended.result.facts["health"] == "Unknown"
    assert "verification" not in ended.result.facts
