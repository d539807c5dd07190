"""A verification as two processes on a real store: what is damaged is found, named, marked and not made up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hack.lab.chain import Chain, Ended
from tenant_backup.archive import names, writer
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import IndexKey
from tenant_backup.archive.manifest import Manifest, Times, parse, sign
from tenant_backup.cli import pipeline
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tenant_backup.stages.verification import is_due
from tenant_backup.stores.base import digest_of
from tests.archive.sample import Folder, Keyring, describe, known_from
from tests.stages.pod import TENANT
from tests.stores.s3_server import Proxy

from .site import Site

FIRST, SECOND = "acme_2024-01-15_14-30-25", "acme_2024-01-16_14-30-25"
ROWS = 3000


def rows_of(table: str) -> bytes:
    """Rows that do not compress, so that each table fills a pack."""
    return b"".join(f"{number}\t{table}\t{secrets.token_hex(32)}\n".encode() for number in range(ROWS))


CONTENT = {f"public.{name}": rows_of(name) for name in ("a", "b", "c")}


@dataclass
class Tenant:
    """Tenant acme with backups in a real store."""

    site: Site
    folder: Folder

    @property
    def keys(self) -> Keyring:
        """Its keys, as they are mounted in its pods."""
        pod = self.site.pod
        recipient = str(pyrage.x25519.Identity.from_str(pod.identity).to_public())
        signing = Ed25519PrivateKey.from_private_bytes(pod.signing_seed)
        return Keyring(IndexKey(pod.index_key), signing, pod.identity, [recipient])

    def back_up(
        self, backup_id: str = FIRST, content: dict[str, bytes] | None = None, base: str = "", short: int = 0
    ) -> Manifest:
        """Write a backup; its catalogue claims `short` rows more of table a than there are."""
        known = known_from(self.folder, self.keys, base) if base else None
        before = set(self.folder.names())
        keys = self.keys.writer_keys()
        archive = writer.ArchiveWriter(keys, "acme", self.folder.root, self.folder.take, known=known)
        tables = []
        for number, (table, rows) in enumerate((content or CONTENT).items()):
            segment = archive.segment(f"t{number}/0", Kind.ROWS, table)
            segment.write(rows)
            segment.end()
            segment.close()
            claimed = rows.count(b"\n") + (short if table == "public.a" else 0)
            tables.append({"name": table, "rows": claimed, "segments": [f"t{number}/0"]})
        written = archive.finish({"tables": tables, "engine": "test"})
        day = backup_id.split("_")[1]
        times = Times(f"{day}T14:30:25Z", f"{day}T14:30:26Z", f"{day}T14:30:29Z")
        manifest = dataclasses.replace(describe(self.keys, written, backup_id), times=times)
        self.folder.put(names.manifest(backup_id), sign(manifest, self.keys.signing))
        self.folder.put(keys.stored_name(), keys.stored())
        for name in sorted(set(self.folder.names()) - before):
            self.put(name, (self.folder.root / name).read_bytes())
        return manifest

    def put(self, name: str, data: bytes) -> None:
        """Put an object in the place of what is there, as damage does."""
        self.site.store().delete(name)
        self.site.store().put(name, data, digest_of(data))

    def pack_of(self, table: str, backup_id: str = FIRST) -> str:
        """The name of the pack that a table of a full backup fills."""
        manifest = parse(self.site.object(names.manifest(backup_id)))
        return names.pack(manifest.packs[list(CONTENT).index(table)].id)

    def job(self, backup_id: str = FIRST, level: str = "Checksum", **changes: Any) -> jobs.Verify:
        """A verification of everything; keyword arguments replace fields."""
        manifest = (self.folder.root / names.manifest(backup_id)).read_bytes()
        values: dict[str, Any] = {
            "uid": "uid-1",
            "backup_id": backup_id,
            "level": level,
            "everything": True,
            "day": 0,
            "tenant": TENANT,
            "store": self.site.described,
            "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
            "signing_key": self.keys.public,
            "identity_secret": "acme-identity",
        }
        return jobs.Verify(**(values | changes))

    def run(self, job: jobs.Verify) -> dict[str, Ended]:
        """Run both containers to their end."""
        return Chain(self.site.pod.root).run(job, seconds=60)

    def verify(self, *arguments: Any, **changes: Any) -> dict[str, Any]:
        """The facts of a verification that ended well."""
        ended = self.run(self.job(*arguments, **changes))
        assert [each.code for each in ended.values()] == [0, 0], [each.stderr for each in ended.values()]
        result = ended["examine"].result
        assert result is not None
        return result.facts

    def marks(self) -> dict[str, Any]:
        """What is marked bad, by object."""
        found = [json.loads(self.site.object(name)) for name in self.site.names("bad")]
        return {each["object"]: each for each in found}


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack and a list for each table."""
    monkeypatch.setattr(writer, "PACK_TARGET", 1)
    monkeypatch.setattr(writer, "_INDEX_PACK_TARGET", 1)


@pytest.fixture
def acme(site: Site, tmp_path: Path) -> Tenant:
    """Tenant acme on a store of each kind, with one backup."""
    return _tenant(site, tmp_path)


@pytest.fixture
def on_disk(on_volume: Site, tmp_path: Path) -> Tenant:
    """The same on a volume only: where the kind of store makes no difference."""
    return _tenant(on_volume, tmp_path)


def _tenant(site: Site, folder: Path) -> Tenant:
    tenant = Tenant(site, Folder(folder / "written"))
    tenant.folder.root.mkdir()
    tenant.back_up()
    return tenant


def message(facts: dict[str, Any]) -> str:
    """What the user reads."""
    return str(facts["verification"]["message"])


def flipped(data: bytes) -> bytes:
    """One bit is another."""
    damaged = bytearray(data)
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


def cut_short(data: bytes) -> bytes:
    """The end is missing."""
    return data[: len(data) // 2]


LEVELS = pytest.mark.parametrize("level", ["Checksum", "Contents"])


@LEVELS
def test_a_whole_backup_is_healthy(acme: Tenant, level: str) -> None:
    """Every pack and list was read, and nothing is marked."""
    facts = acme.verify(level=level)
    manifest = parse(acme.site.object(names.manifest(FIRST)))
    assert facts["health"] == "Healthy"
    assert facts["verification"]["level"] == level
    assert facts["checked"]["objects"] == len(manifest.packs) + len(manifest.lists)
    assert facts["checked"]["bytes"] == manifest.bytes.stored
    assert acme.marks() == {}


@LEVELS
@pytest.mark.parametrize("harm", [flipped, cut_short])
def test_a_damaged_pack_is_named_with_the_tables_it_hits_and_marked(
    acme: Tenant, level: str, harm: Callable[[bytes], bytes]
) -> None:
    """The other tables are not blamed."""
    pack = acme.pack_of("public.b")
    acme.put(pack, harm(acme.site.object(pack)))
    facts = acme.verify(level=level)
    assert facts["health"] == "Corrupt"
    assert f"{pack} is damaged" in message(facts)
    assert "tables hit: public.b;" in message(facts)
    assert {name: mark["by"] for name, mark in acme.marks().items()} == {pack: "verify"}


@LEVELS
def test_a_missing_pack_is_named(acme: Tenant, level: str) -> None:
    """Somebody deleted it."""
    pack = acme.pack_of("public.c")
    acme.site.store().delete(pack)
    facts = acme.verify(level=level)
    assert facts["health"] == "Corrupt"
    assert f"{pack} is missing" in message(facts)
    assert "tables hit: public.c;" in message(facts)
    assert set(acme.marks()) == {pack}


@LEVELS
def test_swapped_packs_are_both_damaged(on_disk: Tenant, level: str) -> None:
    """Each is whole, in the other's place."""
    one, two = on_disk.pack_of("public.a"), on_disk.pack_of("public.c")
    first, second = on_disk.site.object(one), on_disk.site.object(two)
    on_disk.put(one, second)
    on_disk.put(two, first)
    facts = on_disk.verify(level=level)
    assert "tables hit: public.a, public.c;" in message(facts)
    assert set(on_disk.marks()) == {one, two}


@LEVELS
def test_a_damaged_list_with_the_catalogue_loses_everything(on_disk: Tenant, level: str) -> None:
    """And the message says so."""
    index = names.index_pack(parse(on_disk.site.object(names.manifest(FIRST))).catalogue.list)
    on_disk.put(index, flipped(on_disk.site.object(index)))
    facts = on_disk.verify(level=level)
    assert facts["health"] == "Corrupt"
    assert f"{index} is damaged" in message(facts)
    assert "nothing of it can be restored" in message(facts)
    assert set(on_disk.marks()) == {index}


@LEVELS
def test_a_damaged_list_hits_the_tables_whose_chunks_it_lists(on_disk: Tenant, level: str) -> None:
    """The packs are whole, and nobody knows what is where in them."""
    manifest = parse(on_disk.site.object(names.manifest(FIRST)))
    assert len(manifest.lists) == len(CONTENT) + 1
    index = names.index_pack(manifest.lists[1].id)
    on_disk.put(index, cut_short(on_disk.site.object(index)))
    facts = on_disk.verify(level=level)
    assert f"{index} is damaged; tables hit: public.b;" in message(facts)


@LEVELS
@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_manifest_that_is_not_the_committed_one_loses_everything(
    on_disk: Tenant, level: str, harm: str
) -> None:
    """Its checksum is known to the cluster."""
    name = names.manifest(FIRST)
    on_disk.put(name, flipped(on_disk.site.object(name)))
    if harm == "missing":
        on_disk.site.store().delete(name)
    facts = on_disk.verify(level=level)
    assert facts["health"] == "Corrupt"
    assert "nothing of it can be restored" in message(facts)


def test_contents_finds_what_a_matching_checksum_hides(on_disk: Tenant) -> None:
    """A pack that was broken before its SHA-256 was taken: only whoever opens it can tell."""
    pack = on_disk.pack_of("public.b")
    broken = flipped(on_disk.site.object(pack))
    on_disk.put(pack, broken)
    manifest = parse(on_disk.site.object(names.manifest(FIRST)))
    packs = tuple(
        dataclasses.replace(ref, sha256=digest_of(broken).sha256) if names.pack(ref.id) == pack else ref
        for ref in manifest.packs
    )
    signed = sign(dataclasses.replace(manifest, packs=packs), on_disk.keys.signing)
    on_disk.folder.put(names.manifest(FIRST), signed)
    on_disk.put(names.manifest(FIRST), signed)
    assert on_disk.verify(level="Checksum")["health"] == "Healthy"
    facts = on_disk.verify(level="Contents")
    assert facts["health"] == "Corrupt"
    assert f"{pack} is damaged" in message(facts)
    assert "tables hit: public.b;" in message(facts)
    assert set(on_disk.marks()) == {pack}


def test_contents_counts_the_rows_of_each_table(on_disk: Tenant) -> None:
    """Every byte is what was written, and still a row is missing; no pack is to blame for that."""
    on_disk.back_up(SECOND, short=1)
    assert on_disk.verify(SECOND, "Checksum")["health"] == "Healthy"
    facts = on_disk.verify(SECOND, "Contents")
    assert facts["health"] == "Corrupt"
    assert f"table public.a has {ROWS} rows where {ROWS + 1} were backed up" in message(facts)
    assert on_disk.marks() == {}


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_contents_tries_the_copy_of_the_keys_that_is_for_the_loss_of_the_cluster(
    on_disk: Tenant, harm: str
) -> None:
    """Here it can be restored, elsewhere it could not: Degraded."""
    (copy,) = on_disk.site.names("keys")
    on_disk.put(copy, cut_short(on_disk.site.object(copy)))
    if harm == "missing":
        on_disk.site.store().delete(copy)
    assert on_disk.verify(level="Checksum")["health"] == "Healthy"
    facts = on_disk.verify(level="Contents")
    assert facts["health"] == "Degraded"
    assert message(facts).startswith("without this cluster it could not be restored: ")
    assert on_disk.marks() == {}


def test_other_backups_that_need_the_damaged_pack_are_named(acme: Tenant) -> None:
    """And only those: a backup without that pack is none of them."""
    acme.back_up(SECOND, CONTENT | {"public.b": rows_of("other")}, base=FIRST)
    shared, own = acme.pack_of("public.a"), acme.pack_of("public.b")
    acme.put(shared, flipped(acme.site.object(shared)))
    facts = acme.verify()
    assert facts["backups"] == [SECOND]
    assert f"other backups hit: {SECOND}" in message(facts)
    assert facts["damaged"] == f"{shared} is damaged"
    later = acme.verify(SECOND)
    assert later["backups"] == [FIRST]
    acme.put(shared, (acme.folder.root / shared).read_bytes())
    acme.put(own, flipped(acme.site.object(own)))
    assert acme.verify()["backups"] == []
    assert acme.verify(SECOND)["health"] == "Healthy"


def test_of_older_packs_a_seventh_is_read_each_day_and_all_of_it_in_a_week(on_disk: Tenant) -> None:
    """What the run itself wrote is read at once."""
    manifest = on_disk.back_up(SECOND, CONTENT | {"public.b": rows_of("other")}, base=FIRST)
    first = parse(on_disk.site.object(names.manifest(FIRST)))
    older = {ref.id for ref in (*first.packs, *first.lists)}
    refs = [*manifest.packs, *manifest.lists]
    own = [ref for ref in refs if ref.id not in older]
    assert own
    assert len(own) < len(refs)
    week = []
    for day in range(7):
        due = [ref for ref in refs if ref.id in older and is_due(ref.id, day)]
        facts = on_disk.verify(SECOND, everything=False, day=day)
        assert facts["checked"] == {
            "objects": len(own) + len(due),
            "bytes": sum(ref.length for ref in (*own, *due)),
        }
        week += due
    assert sorted(ref.id for ref in week) == sorted(ref.id for ref in refs if ref.id in older)


def test_a_pack_that_is_not_due_is_missed_when_it_is_gone_and_read_when_it_was_bad(on_disk: Tenant) -> None:
    """So a backup is never called healthy that shares a pack known to be damaged."""
    on_disk.back_up(SECOND, base=FIRST)
    pack = on_disk.pack_of("public.a")
    off_day = next(day for day in range(7) if not is_due(pack.rsplit("/", 1)[-1], day))
    on_disk.put(pack, flipped(on_disk.site.object(pack)))
    quick: dict[str, Any] = {"everything": False, "day": off_day}
    assert on_disk.verify(SECOND, **quick)["health"] == "Healthy"
    assert on_disk.verify(FIRST)["health"] == "Corrupt"
    assert on_disk.verify(SECOND, **quick)["health"] == "Corrupt"
    on_disk.put(pack, (on_disk.folder.root / pack).read_bytes())
    assert on_disk.verify(SECOND, **quick)["health"] == "Healthy"
    other = on_disk.pack_of("public.b")
    on_disk.site.store().delete(other)
    assert f"{other} is missing" in message(on_disk.verify(SECOND, **quick))


def test_without_the_index_key_the_damage_is_told_and_the_tables_are_not(on_disk: Tenant) -> None:
    """A Secret that is gone must not hide a damaged pack."""
    pack = on_disk.pack_of("public.a")
    on_disk.put(pack, flipped(on_disk.site.object(pack)))
    on_disk.site.pod.forget_cluster_keys()
    shutil.rmtree(on_disk.site.pod.root / "secrets/identity")
    facts = on_disk.verify()
    assert facts["health"] == "Corrupt"
    assert f"{pack} is damaged" in message(facts)
    assert "which tables are hit cannot be said" in message(facts)


def test_a_mark_is_written_once_whoever_finds_the_damage_again(acme: Tenant) -> None:
    """Marks are create-only, like everything in the store."""
    pack = acme.pack_of("public.a")
    acme.put(pack, flipped(acme.site.object(pack)))
    first = acme.verify()
    (mark,) = acme.site.names("bad")
    text = acme.site.object(mark)
    assert acme.verify() == first
    assert acme.site.names("bad") == [mark]
    assert acme.site.object(mark) == text


def test_a_mark_that_cannot_be_written_hides_nothing(on_disk: Tenant) -> None:
    """The damage is told, and that later backups may still refer to it."""
    pack = on_disk.pack_of("public.a")
    on_disk.put(pack, flipped(on_disk.site.object(pack)))
    blocked = on_disk.site.volume / "prod/acme/bad"
    blocked.write_text("a file where a folder should be")
    facts = on_disk.verify()
    assert facts["health"] == "Corrupt"
    assert "no mark could be written" in message(facts)


def failed(tenant: Tenant, **changes: Any) -> Ended:
    """How `examine` ended; `download` must have blamed it."""
    ended = tenant.run(tenant.job(**changes))
    assert ended["download"].code == ExitCode.PEER_FAILED
    return ended["examine"]


def test_contents_without_an_identity_says_which_secret_is_missing(on_disk: Tenant) -> None:
    """That is no damage."""
    shutil.rmtree(on_disk.site.pod.root / "secrets/identity")
    ended = failed(on_disk, level="Contents")
    assert ended.result is not None
    assert (ended.code, ended.result.reason) == (ExitCode.PERMANENT, Reason.KEY_MISSING)
    assert "acme-identity" in ended.result.message
    assert on_disk.verify(level="Checksum")["health"] == "Healthy"


def test_contents_with_a_wrong_identity_is_no_damage(on_disk: Tenant) -> None:
    """Nothing is marked, and health stays what it was."""
    on_disk.site.pod.secret("identity", "identity", str(pyrage.x25519.Identity.generate()).encode())
    ended = failed(on_disk, level="Contents")
    assert ended.result is not None
    assert (ended.code, ended.result.reason) == (ExitCode.PERMANENT, Reason.WRONG_KEY)
    assert on_disk.marks() == {}


def test_another_signing_key_is_no_damage(on_disk: Tenant) -> None:
    """The manifest is the committed one: it is the key that changed."""
    ended = failed(on_disk, signing_key="00" * 32)
    assert ended.result is not None
    assert (ended.code, ended.result.reason) == (ExitCode.PERMANENT, Reason.SIGNATURE_INVALID)


def test_a_key_of_an_earlier_life_is_believed_where_a_person_named_it(on_disk: Tenant) -> None:
    """As a restore does."""
    assert on_disk.verify(signing_key="00" * 32, trusted_keys=[on_disk.keys.public])["health"] == "Healthy"


@pytest.mark.timeout(90)
def test_a_store_that_does_not_answer_is_worth_another_try(
    behind_proxy: Site, proxy: Proxy, tmp_path: Path
) -> None:
    """It says nothing about the backup."""
    tenant = _tenant(behind_proxy, tmp_path)
    job = tenant.job()
    proxy.close()
    ended = tenant.run(job)
    result = ended["download"].result
    assert result is not None
    assert (ended["download"].code, result.reason) == (ExitCode.RETRIABLE, Reason.STORE_UNAVAILABLE)
    assert ended["examine"].code == ExitCode.PEER_FAILED


@pytest.mark.parametrize("victim", ["download", "examine"])
def test_a_verification_that_is_killed_finds_the_same_when_it_runs_again(
    behind_proxy: Site, proxy: Proxy, tmp_path: Path, victim: str
) -> None:
    """One damaged pack is marked already when it dies over the next object."""
    tenant = _tenant(behind_proxy, tmp_path)
    pack = tenant.pack_of("public.a")
    tenant.put(pack, flipped(tenant.site.object(pack)))
    reached, gone, job = threading.Event(), threading.Event(), tenant.job()

    def hold_the_manifests(block: bytes) -> bytes | None:
        # After the marks come the other backups' manifests, found by a listing.
        if block.startswith(b"GET") and b"list-type=2" in block and b"manifests" in block:
            reached.set()
            gone.wait(30)
        return block

    proxy.request = hold_the_manifests

    def kill(running: Sequence[pipeline.Running]) -> None:
        if reached.is_set() and not gone.is_set():
            process = next(each.process for each in running if each.stage == victim)
            process.kill()
            process.wait()
            gone.set()

    mounts = pipeline.Mounts(tenant.site.pod.root / "secrets", None)
    with tempfile.TemporaryDirectory(prefix="tb-") as root:
        ended = pipeline.run(job, Path(root) / "pod", mounts, kill)
    proxy.request = lambda block: block
    assert ended.pop(victim).code == -signal.SIGKILL
    assert [each.code for each in ended.values()] == [ExitCode.PEER_FAILED]
    (mark,) = tenant.site.names("bad")
    facts = tenant.verify()
    assert facts["health"] == "Corrupt"
    assert "tables hit: public.a;" in message(facts)
    assert tenant.site.names("bad") == [mark]


def test_a_thousand_hit_tables_fit_into_the_answer_and_are_all_in_the_log(
    on_disk: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet keeps 2 KiB; the log has numbered lines."""
    for target in ("PACK_TARGET", "_INDEX_PACK_TARGET"):  # so few that later backups refer to them
        monkeypatch.setattr(writer, target, 1 << 14)
    content = {f"public.{'ä' * 27}_{number}": b"1\n" for number in range(1000)}
    on_disk.back_up(SECOND, content)
    for backup in range(10, 28):
        on_disk.back_up(f"acme_2024-02-{backup}_00-00-00", content, base=SECOND)
    manifest = parse(on_disk.site.object(names.manifest(SECOND)))
    for ref in manifest.packs:
        on_disk.site.store().delete(names.pack(ref.id))
    mounts = pipeline.Mounts(on_disk.site.pod.root / "secrets", on_disk.site.volume)
    with tempfile.TemporaryDirectory(prefix="tb-") as root:
        pod = Path(root) / "pod"
        ended = pipeline.run(on_disk.job(SECOND), pod, mounts, lambda _running: None)
        log = [json.loads(line) for line in (pod / "examine" / "stdout").read_text().splitlines()]
    result = ended["examine"].result
    assert result is not None
    assert "and 997 more" in message(result.facts)
    assert 0 < len(result.facts["backups"]) <= 18
    findings = [line for line in log if "finding" in line]
    assert [line["finding"] for line in findings] == list(range(1, findings[0]["of"] + 1))
    assert sorted(line["table"] for line in findings if "table" in line) == sorted(content)
    assert len([line for line in findings if "backup" in line]) == 18
