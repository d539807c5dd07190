"""What no backup needs leaves a real store, by the operator, and what another one needs does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Room

pytestmark = pytest.mark.cluster


def collect(room: Room, value: str) -> dict[str, Any]:
    """Ask for a collection; return the store's status once it is done."""
    room.kubectl("annotate", "--overwrite", "bst/prod", f"tenantbackup.dev/collect={value}")

    def done(store: dict[str, Any]) -> bool:
        return bool(store["status"].get("collection", {}).get("requested") == value)

    return dict(room.kubectl.wait("bst", "prod", done, 90)["status"])


def objects(room: Room) -> set[str]:
    """The packs and lists in this test's part of the store."""
    folder = f"/data/backups/{room.prefix}"
    found = room.s3.shell(f"find {folder} -path '*/packs/*' -type f -o -path '*/lists/*' -type f")
    return set(found.split())


def let_a_day_pass(room: Room) -> None:
    """For the store: its clock is the time of its files."""
    room.s3.shell(f"find /data/backups/{room.prefix} -type f -exec touch -d '26 hours ago' {{}} +")


def test_what_only_a_deleted_or_failed_backup_needed_is_deleted(room: Room) -> None:
    """A grace after it was named; the other backup restores."""
    room.back_up("old", mode="Full")
    of_old = objects(room)
    room.back_up("new", mode="Full")
    of_new = objects(room) - of_old
    # What a run leaves that died before its commit.
    sample = next(name for name in of_new if "/lists/" in name)
    left_over = sample[:-32] + "ab" * 16
    room.s3.shell(f"cp {sample} {left_over}")
    let_a_day_pass(room)

    room.kubectl("delete", "tb/old", "--timeout=60s")
    assert collect(room, "dry-run")["collection"]["message"].startswith("dry run: 0 objects")
    first = collect(room, "first")
    assert (first["collection"]["deleted"], first["backups"], first["tenants"]) == (0, 1, 1), first
    assert objects(room) == of_old | of_new | {left_over}

    let_a_day_pass(room)
    last = collect(room, "last")
    assert last["collection"]["deleted"] == len(of_old) + 1, last
    assert last["collection"]["freedBytes"] > 0
    assert objects(room) == of_new
    events = {item["reason"] for item in room.kubectl.list("events")}
    assert "StoreCollected" in events

    where = room.new_database_spec("new", f"{room.database}_copy")
    done = room.restore("copy", "new", strategy=where["strategy"], target=where["target"])
    assert done["status"]["state"] == "Succeeded", done["status"]
    copy = room.server.fingerprint(f"{room.database}_copy")
    assert room.server.fingerprint(room.database) == copy
