"""What a store can do, found out by doing it; and deleting one backup and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.stages import probe
from tenant_backup.stores.base import Digest, digest_of
from tenant_backup.stores.volume import VolumeStore
from tests.stages.pod import BACKUP_ID
from tests.stores.s3_server import READER, WRITER, S3Server

from .site import OTHER_UID, Site, manifest_of, s3_site

MANIFEST = f"manifests/{BACKUP_ID}"


def left(site: Site) -> list[str]:
    """What probes left in the store."""
    return [entry.name for entry in site.store(probe.FOLDER).entries(probe_folder())]


def probe_folder() -> str:
    """Where the probe of this BackupStore writes."""
    return probe.folder_of("store-uid")


def test_a_good_store_can_do_everything_and_is_left_clean(site: Site) -> None:
    """Also when a killed probe left something behind."""
    site.store(probe.FOLDER).put(f"{probe_folder()}/left", b"by a killed one", digest_of(b"by a killed one"))
    for _ in range(2):
        ended = site.pod.start("probe", site.probe()).ended()
        assert ended.code == ExitCode.SUCCESS
        assert ended.result.facts == {
            "location": site.store().location.removesuffix("/acme"),
            "capabilities": {"conditionalPut": True, "delete": True},
        }
        assert left(site) == []


def test_a_store_that_refuses_deletion_is_described_not_failed(on_s3: Site, s3: S3Server) -> None:
    """Writers need no right to delete; what the probe wrote stays."""
    site = s3_site(on_s3.pod, s3.endpoint, WRITER)
    ended = site.pod.start("probe", site.probe()).ended()

    assert ended.result.facts["capabilities"] == {"conditionalPut": True, "delete": False}
    assert len(left(site)) == 1


def test_a_store_that_refuses_writing_is_not_ready(on_s3: Site, s3: S3Server) -> None:
    """StorePermissionDenied with the server's line."""
    ended = s3_site(on_s3.pod, s3.endpoint, READER).pod.start("probe", on_s3.probe()).ended()

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_PERMISSION_DENIED)
    assert "AccessDenied" in ended.result.message


class Overwriting(VolumeStore):
    """Ignores create-only, as S3 servers without conditional writes do."""

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """Break the promise."""
        self.delete(name)
        super().put(name, source, digest)


class Changing(VolumeStore):
    """Gives back other bytes than it was given."""

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """Break the promise."""
        super().put(name, b"other", digest_of(b"other"))


class Forgetting(VolumeStore):
    """Acknowledges and keeps nothing."""

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """Break the promise."""
        return


def probed(site: Site, faulty: type[VolumeStore], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Probe a store with an injected fault."""
    store = faulty(site.volume, f"prod/{probe.FOLDER}")
    monkeypatch.setattr(probe, "connect", lambda *_arguments, **_places: store)
    return probe.run(site.probe())


def test_a_store_that_overwrites_is_found_out(on_volume: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in the capabilities."""
    facts = probed(on_volume, Overwriting, monkeypatch)

    assert facts["capabilities"] == {"conditionalPut": False, "delete": True}


@pytest.mark.parametrize("faulty", [Changing, Forgetting])
def test_a_store_that_does_not_give_back_what_it_got_is_no_store(
    on_volume: Site, monkeypatch: pytest.MonkeyPatch, faulty: type[VolumeStore]
) -> None:
    """ChecksumMismatch, in one sentence."""
    with pytest.raises(Failure) as caught:
        probed(on_volume, faulty, monkeypatch)

    assert caught.value.reason is Reason.CHECKSUM_MISMATCH


def test_a_backup_is_deleted_and_deleting_again_is_well(site: Site) -> None:
    """The manifest goes, packs stay for the collector; a second attempt finds nothing to do."""
    for name, data in {MANIFEST: manifest_of(), "packs/aa/one": b"x"}.items():
        site.store().put(name, data, digest_of(data))
    first = site.pod.start("delete", site.delete()).ended()
    second = site.pod.start("delete", site.delete()).ended()

    assert first.result.facts == {"backupId": BACKUP_ID, "deleted": True, "left": False, "message": ""}
    assert (second.code, second.result.facts["deleted"]) == (ExitCode.SUCCESS, False)
    assert second.result.facts["left"] is False
    assert site.names("manifests") == []
    assert site.names("packs") == ["packs/aa/one"]


@pytest.mark.parametrize("theirs", [manifest_of(uid=OTHER_UID), b"unreadable"])
def test_another_backups_manifest_is_left_alone(site: Site, theirs: bytes) -> None:
    """And the facts say so."""
    site.store().put(MANIFEST, theirs, digest_of(theirs))
    ended = site.pod.start("delete", site.delete()).ended()

    assert ended.code == ExitCode.SUCCESS
    assert (ended.result.facts["deleted"], ended.result.facts["left"]) == (False, True)
    assert "left alone" in ended.result.facts["message"]
    assert theirs == site.object(MANIFEST)


def test_a_deletion_the_store_refuses_is_permission_denied(on_s3: Site, s3: S3Server) -> None:
    """Nothing is called deleted that is still there."""
    on_s3.store().put(MANIFEST, manifest_of(), digest_of(manifest_of()))
    ended = s3_site(on_s3.pod, s3.endpoint, WRITER).pod.start("delete", on_s3.delete()).ended()

    assert (ended.code, ended.reason) == (ExitCode.PERMANENT, Reason.STORE_PERMISSION_DENIED)
    assert on_s3.names("manifests") == [MANIFEST]
