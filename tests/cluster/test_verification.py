"""Damage in a real store, found by a real verification and not built upon by the next backup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hack.lab.kubectl import condition

if TYPE_CHECKING:
    from .conftest import Room

pytestmark = pytest.mark.cluster


def verify(room: Room, name: str, value: str) -> dict[str, Any]:
    """Ask for a verification; return the status once it has been handled."""
    room.kubectl("annotate", "--overwrite", f"tb/{name}", f"tenantbackup.dev/verify={value}")

    def handled(found: dict[str, Any]) -> bool:
        status = found["status"]
        return status.get("verification", {}).get("requested") == value and "progress" not in status

    return dict(room.kubectl.wait("tb", name, handled, 60)["status"])


def test_a_damaged_pack_is_found_named_told_and_not_built_upon(room: Room) -> None:
    """One byte in the middle, and the byte brought back."""
    assert room.back_up("b1")["status"]["health"] == "Healthy"
    find = f"cd /data/backups/{room.prefix} && f=$(find . -path '*/packs/*' -type f | head -1)"
    pack = room.s3.shell(f"{find}; cp -p $f /tmp/{room.prefix}; echo $f").strip()
    room.s3.shell(
        f"{find}; printf '\\377\\000\\377' | dd of=$f bs=1 seek=$(($(stat -c %s $f) / 2)) conv=notrunc 2>/dev/null"
    )

    status = verify(room, "b1", "one")
    assert (status["state"], status["health"]) == ("Succeeded", "Corrupt")
    message = status["verification"]["message"]
    assert pack.rsplit("/", 1)[-1] in message
    assert "public.note" in message
    found = room.kubectl.get("tb", "b1")
    assert condition(found, "Succeeded")["status"] == "True"
    assert pack.rsplit("/", 1)[-1] in condition(found, "Succeeded")["message"]
    events = {item["reason"]: item["type"] for item in room.kubectl.list("events") if _is_about(item, "b1")}
    assert events["VerificationFailed"] == "Warning"

    status = room.back_up("b2")["status"]
    assert status["health"] == "Healthy"
    assert status["bytes"]["added"] == status["bytes"]["stored"]

    room.s3.shell(f"cd /data/backups/{room.prefix} && cat /tmp/{room.prefix} > {pack}")
    assert verify(room, "b1", "Contents, after the pack came back")["health"] == "Healthy"


def test_contents_are_verified_after_the_backup_has_succeeded(room: Room) -> None:
    """By a Job that has the identity; without it nobody calls the backup bad."""
    room.back_up("b1", verification="Contents")
    found = room.kubectl.wait("tb", "b1", lambda item: item["status"].get("health") == "Healthy", 60)
    assert found["status"]["verification"]["level"] == "Contents"

    room.kubectl("delete", "secret", "identity")
    status = verify(room, "b1", "again")
    assert status["health"] == "Healthy"
    assert "KeyMissing" in status["verification"]["message"]
    assert "identity" in status["verification"]["message"]


def _is_about(event: dict[str, Any], name: str) -> bool:
    return bool(event["involvedObject"]["name"] == name)
