"""Files of volumes through all stages as real processes, to a volume store and back, without a database."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.lab.chain import Chain, Ended, facts
from hack.lab.kubectl import ROOT
from tenant_backup.cli.pipeline import Running
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tests.engines.trees import described, grow, volume


@dataclass
class Site:
    """A tenant's volumes, its keys, and a store on disk."""

    chain: Chain
    identity: pyrage.x25519.Identity

    @property
    def tenant(self) -> jobs.Tenant:
        """The tenant's identity."""
        return jobs.Tenant("cluster", "lab", "acme", "acme")

    def folder(self, name: str) -> Path:
        """A volume, made when it is asked for."""
        path = self.chain.folder / "files" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def backup(self, *names: str, **changes: Any) -> jobs.Backup:
        """A backup of these volumes."""
        job = jobs.Backup(
            uid=str(uuid.uuid4()),
            backup_id="acme_2026-01-01_00-00-00",
            name="b1",
            tenant=self.tenant,
            database=jobs.NO_DATABASE,
            store=jobs.Store("volume", prefix="lab"),
            recipients=[str(self.identity.to_public())],
            files=[volume(name) for name in names],
        )
        return replace(job, **changes)

    def restore(self, found: dict[str, Any], *names: str) -> jobs.Restore:
        """A restore of volumes of these names; they have to be empty by then."""
        return jobs.Restore(
            uid=str(uuid.uuid4()),
            name="r1",
            strategy="NewDatabase",
            source=self.tenant,
            tenant=self.tenant,
            database=jobs.NO_DATABASE,
            target_database="",
            store=jobs.Store("volume", prefix="lab"),
            backup_id=found["backupId"],
            manifest_sha256=found["checksum"].removeprefix("sha256:"),
            signing_key=self.chain.signing_key,
            files=[volume(name) for name in names],
        )

    def move_away(self, name: str) -> Path:
        """Have an empty volume of that name; return where its files are now."""
        before = self.chain.folder / "before" / name
        before.parent.mkdir(exist_ok=True)
        self.folder(name).rename(before)
        self.folder(name)
        return before

    def manifests(self) -> list[Path]:
        """The manifests in the store."""
        return list((self.chain.folder / "store").rglob("manifests/*"))


@pytest.fixture
def site(short_path: Path) -> Site:
    """A tenant without a backup."""
    found = Site(Chain(short_path), pyrage.x25519.Identity.generate())
    found.chain.write_keys()
    found.chain.write_secret("identity", {"identity": f"{found.identity}\n"})
    return found


def failure(ended: dict[str, Ended], stage: str) -> tuple[Reason, str]:
    """Why a stage failed."""
    result = ended[stage].result
    assert result is not None
    return result.reason, result.message


def test_two_volumes_come_back_as_they_were(site: Site) -> None:
    """Each by containers of its own; one of them is empty. docs/restore.py writes what any tar unpacks."""
    grow(site.folder("uploads"), 2)
    site.folder("nothing")
    ended = site.chain.run(site.backup("uploads", "nothing"))
    found = facts(ended, "upload")
    assert (found["tables"], found["rows"], found["consistency"]) == (0, 0, "PerFile")
    assert found["health"] == "Healthy"
    count = facts(ended, "gather uploads")["files"]
    assert found["files"] == {"count": count, "changed": 0, "skipped": 0}
    manifest = json.loads(site.manifests()[0].read_bytes())
    assert ("contents" in manifest, manifest["server"]) == (False, {"engine": "", "version": ""})
    assert manifest["files"]["readFrom"] <= manifest["files"]["readTo"]
    before = {name: site.move_away(name) for name in ("uploads", "nothing")}
    placed = site.chain.run(site.restore(found, "uploads", "nothing"))
    assert facts(placed, "place uploads") == {
        "files": count,
        "bytes": facts(ended, "gather uploads")["bytes"],
        "skipped": [],
    }
    assert {name: described(site.folder(name)) for name in before} == {
        name: described(folder) for name, folder in before.items()
    }
    unpacked = _by_the_script(site, found)
    assert {path: one[4] for path, one in described(unpacked).items()} == {
        path: one[4] for path, one in described(before["uploads"]).items()
    }


def _by_the_script(site: Site, found: dict[str, Any]) -> Path:
    output, identity = site.chain.folder / "output", site.chain.folder / "identity"
    identity.write_text(f"{site.identity}\n")
    (folder,) = (site.chain.folder / "store").rglob("acme")
    command = [sys.executable, ROOT / "docs/restore.py", folder, found["backupId"], identity]
    subprocess.run([*command, f"ed25519:{site.chain.signing_key}", output], check=True, capture_output=True)
    unpacked = site.chain.folder / "unpacked"
    unpacked.mkdir()
    subprocess.run(
        ["tar", "--xattrs", "-xpf", output / "uploads.tar", "-C", unpacked], check=True, capture_output=True
    )
    return unpacked


def test_a_second_backup_stores_only_what_changed(site: Site) -> None:
    """A file more at the front, one less, a byte in the middle of a large one: the rest is known by its content."""
    chance, top = random.Random(1), site.folder("uploads")
    (top / "large").write_bytes(chance.randbytes(20 << 20))
    for number in range(2000):
        (top / f"small{number:04}").write_bytes(chance.randbytes(chance.randint(0, 4000)))
    first = facts(site.chain.run(site.backup("uploads")), "upload")["bytes"]
    again = facts(site.chain.run(site.backup("uploads")), "upload")["bytes"]
    (top / "a new one").write_bytes(b"x" * 100)
    (top / "small1000").unlink()
    with (top / "large").open("r+b") as file:
        file.seek(10 << 20)
        file.write(b"!")
    third = facts(site.chain.run(site.backup("uploads")), "upload")["bytes"]
    assert first["added"] > 20 << 20
    assert again["added"] < first["added"] / 500
    assert third["added"] < first["added"] / 30


def test_what_has_not_changed_since_the_last_backup_is_not_read(site: Site) -> None:
    """It comes back as it was all the same; it is read when a pack of it is bad, and by a full backup."""
    encodings = Path(sysconfig.get_path("stdlib")) / "encodings"  # more than a minute old
    uploads = site.folder("uploads")
    uploads.rmdir()
    uploads.symlink_to(encodings)
    first = site.chain.run(site.backup("uploads"))
    files = facts(first, "gather uploads")["files"]
    assert facts(first, "gather uploads")["read"] == files > 100
    again = site.chain.run(site.backup("uploads"))
    found = facts(again, "upload")
    assert facts(again, "gather uploads") == facts(first, "gather uploads") | {"read": 0}
    assert found["bytes"]["logical"] == facts(first, "upload")["bytes"]["logical"]
    assert found["bytes"]["added"] < 5000
    uploads.unlink()
    site.folder("uploads")
    placed = site.chain.run(site.restore(found, "uploads"))
    assert facts(placed, "place uploads")["files"] == files
    assert described(site.folder("uploads")) == described(encodings)
    shutil.rmtree(uploads)
    uploads.symlink_to(encodings)
    full = site.chain.run(site.backup("uploads", mode="Full"))
    assert facts(full, "gather uploads")["read"] == files
    (store,) = (site.chain.folder / "store").rglob("acme")
    for pack in json.loads(max(site.manifests()).read_bytes())["packs"]:
        (store / "bad").mkdir(exist_ok=True)
        (store / "bad" / pack["id"]).write_text("{}")
    after = site.chain.run(site.backup("uploads"))
    assert facts(after, "gather uploads")["read"] == files


def test_a_file_that_is_written_all_the_time_is_marked_and_comes_back_as_it_was_read(site: Site) -> None:
    """In the manifest as a number, in the log by its name; what is beside it is whole."""
    log, quiet = site.folder("uploads") / "log", site.folder("uploads") / "quiet"
    log.write_bytes(b"line\n" * 10_000_000)
    quiet.write_bytes(b"quiet")

    def write(_running: Sequence[Running]) -> None:
        with log.open("ab") as file:
            file.write(b"line\n")

    ended = site.chain.run(site.backup("uploads"), meanwhile=write)
    found = facts(ended, "upload")
    assert found["files"] == {"count": 2, "changed": 1, "skipped": 0}
    assert json.loads(site.manifests()[0].read_bytes())["files"]["changed"] == 1
    before = site.move_away("uploads")
    placed = site.chain.run(site.restore(found, "uploads"))
    facts(placed, "place uploads")
    peaks = [ended["gather uploads"].peak_rss, placed["place uploads"].peak_rss]
    assert max(peaks) < 64 << 20, peaks
    assert (site.folder("uploads") / "quiet").read_bytes() == b"quiet"
    read = (site.folder("uploads") / "log").read_bytes()
    assert (before / "log").read_bytes().startswith(read)
    assert len(read) > 50_000_000


def test_a_reader_that_is_killed_is_never_a_backup(site: Site) -> None:
    """SIGKILL in the middle of a volume; nothing is committed, and the next attempt does it all."""
    with (site.folder("uploads") / "large").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))

    def kill(running: Sequence[Running]) -> None:
        for one in running:
            if one.stage == "gather uploads" and any((one.folder.parent / "spool").iterdir()):
                one.process.kill()

    ended = site.chain.run(site.backup("uploads"), meanwhile=kill)
    assert (ended["gather uploads"].code, ended["archive"].code) == (-9, ExitCode.PEER_FAILED)
    assert site.manifests() == []
    facts(site.chain.run(site.backup("uploads")), "upload")


def test_a_reader_that_fails_says_why_and_nothing_is_committed(site: Site) -> None:
    """A claim that was not mounted, in the place of all that can go wrong with one."""
    site.folder("uploads")
    ended = site.chain.run(site.backup("uploads", "gone"))
    reason, message = failure(ended, "gather gone")
    assert (reason, "volume gone (claim claim-gone)" in message) == (Reason.VOLUME_UNAVAILABLE, True)
    assert ended["gather uploads"].code == ExitCode.PEER_FAILED
    assert site.manifests() == []


def test_two_volumes_are_replaced_together(site: Site) -> None:
    """The first one decides; when the second cannot be replaced, neither is."""
    for name in ("uploads", "exports"):
        (site.folder(name) / "a").write_bytes(b"old")
    found = facts(site.chain.run(site.backup("uploads", "exports")), "upload")
    for name in ("uploads", "exports"):
        (site.folder(name) / "a").write_bytes(b"new")
        (site.folder(name) / "since").write_bytes(b"new")
    job = replace(site.restore(found, "uploads", "exports"), strategy="Replace")
    (site.folder("exports") / ".tenant-backup").write_bytes(b"in the way of ours")
    before = {name: described(site.folder(name)) for name in ("uploads", "exports")}
    refused = site.chain.run(job)
    assert failure(refused, "place exports")[0] is Reason.VOLUME_UNAVAILABLE
    assert before == {name: described(site.folder(name)) for name in before}
    (site.folder("exports") / ".tenant-backup").unlink()
    assert facts(site.chain.run(job), "place uploads")["files"] == 1
    assert {name: set(described(site.folder(name))) for name in before} == {
        "uploads": {b"a"},
        "exports": {b"a"},
    }
    assert (
        (site.folder("uploads") / "a").read_bytes() == (site.folder("exports") / "a").read_bytes() == b"old"
    )


def test_a_restore_refuses_what_is_not_empty_and_what_is_not_there(site: Site) -> None:
    """And the volume beside it, which could have been filled, ends well or not at all."""
    (site.folder("uploads") / "a").write_bytes(b"a")
    site.folder("other")
    found = facts(site.chain.run(site.backup("uploads")), "upload")
    refused = site.chain.run(site.restore(found, "uploads"))
    assert failure(refused, "place uploads")[0] is Reason.NAME_TAKEN
    assert refused["open"].code == ExitCode.PEER_FAILED
    assert set(described(site.folder("uploads"))) == {b"a"}
    reason, message = failure(site.chain.run(site.restore(found, "other")), "place other")
    assert (reason, "it has those of uploads" in message) == (Reason.PARTIAL_BACKUP, True)


def test_a_restore_killed_while_it_writes_is_ended_by_the_next(site: Site) -> None:
    """The same restore again, as the next pod of its Job does it."""
    for number in range(3000):
        (site.folder("uploads") / f"f{number}").write_bytes(os.urandom(5000))
    found = facts(site.chain.run(site.backup("uploads")), "upload")
    before = site.move_away("uploads")
    job = site.restore(found, "uploads")

    def kill(running: Sequence[Running]) -> None:
        for one in running:
            if one.stage == "place uploads" and any(site.folder("uploads").glob(".tenant-backup/*.new/f*")):
                one.process.kill()

    ended = site.chain.run(job, meanwhile=kill)
    assert ended["place uploads"].code == -9
    assert described(site.folder("uploads")) == {}
    facts(site.chain.run(job), "place uploads")
    facts(site.chain.run(job), "place uploads")
    assert described(site.folder("uploads")) == described(before)
