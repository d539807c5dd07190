"""Who can read a backup: the recipients of its day, those let in later, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from docs.restore import Backup
from tenant_backup.archive import names, rewrap
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.key_finder import KeyFinder
from tenant_backup.archive.keys import Identity, TenantKeys, WriterKeys, recipient_set, wrap
from tenant_backup.archive.manifest import Manifest, parse, sign
from tenant_backup.archive.reader import ArchiveReader, open_index_key, open_manifest
from tenant_backup.archive.rewrap import Rewrapped
from tenant_backup.contract.job import Store as Place
from tenant_backup.contract.objects import Buffer, Digest, Entry
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store
from tests.archive.sample import BACKUP_ID, Folder, Keyring, open_reader, read_all, write

ROWS = b"".join(b"%d\trow %d\n" % (n, n * n) for n in range(40))
LATER = "acme_2024-01-16_14-30-25"


def back_up(folder: Folder, keys: Keyring, backup_id: str = BACKUP_ID) -> None:
    """One more backup of the same rows, with a data key of its own."""
    write(folder, keys, {"t1/0": (Kind.ROWS, [ROWS])}, backup_id)


def restore(folder: Folder, keys: Keyring, identity: Identity | None, backup_id: str = BACKUP_ID) -> None:
    """Restore with an identity and nothing else: the cluster is lost."""
    data = (folder.root / names.manifest(backup_id)).read_bytes()
    manifest = open_manifest(data, keys.public, backup_id, ("acme", "default", "acme"))
    reader = ArchiveReader(manifest, open_index_key(manifest, None, identity, folder), identity, folder)
    reader.check_identity()
    assert read_all(reader) == {"t1/0": ROWS}


def somebody() -> tuple[Identity, str]:
    """An identity and its recipient."""
    made = pyrage.x25519.Identity.generate()
    return Identity.parse(str(made)), str(made.to_public())


@pytest.fixture
def place(tmp_path: Path) -> Store:
    """The folder of the archive as a real store: a volume."""
    return connect(Place("volume"), "acme", secrets=tmp_path, volume=tmp_path)


@pytest.fixture
def archive(tmp_path: Path, keys: Keyring) -> Folder:
    """Two backups of tenant acme in that store, each with its own data key."""
    folder = Folder(tmp_path / "acme")
    folder.root.mkdir()
    back_up(folder, keys)
    back_up(folder, keys, LATER)
    return folder


def let_in(place: rewrap.Objects, keys: Keyring, *recipients: str, by: Identity | None = None) -> Rewrapped:
    """Rewrap as the identity's owner does."""
    return rewrap.rewrap(place, "acme", keys.public, by or keys.identity, recipients)


def test_the_identity_brings_the_clusters_keys_back(archive: Folder, keys: Keyring) -> None:
    """Index key and signing seed: enough to make the Secret again, and to sign as before."""
    manifest = the_manifest(archive)
    found = KeyFinder(manifest, keys.identity, reading(archive)).tenant_keys()
    assert found == TenantKeys(keys.index, keys.signing.private_bytes_raw())
    assert sign(manifest, found.signing()) == (archive.root / names.manifest(BACKUP_ID)).read_bytes()


def the_manifest(archive: Folder) -> Manifest:
    return parse((archive.root / names.manifest(BACKUP_ID)).read_bytes())


def reading(archive: Folder) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        path = archive.root / name
        return path.read_bytes() if path.exists() else None

    return read


def test_who_was_let_in_later_reads_every_backup(archive: Folder, keys: Keyring, place: Store) -> None:
    """Two new recipients, each with one identity; the old one goes on reading."""
    (first, one), (second, other) = somebody(), somebody()
    done = let_in(place, keys, one, other)
    assert (done.backups, done.data_keys, len(done.written), done.skipped) == (2, 2, 6, ())
    for identity in (first, second, keys.identity):
        restore(archive, keys, identity)
        restore(archive, keys, identity, LATER)


def test_rewrapping_again_writes_nothing(archive: Folder, keys: Keyring, place: Store) -> None:
    """And one let in by another who was let in changes nothing either."""
    identity, recipient = somebody()
    let_in(place, keys, recipient)
    before = archive.names()
    assert let_in(place, keys, recipient).written == ()
    assert let_in(place, keys, recipient, by=identity).written == ()
    assert archive.names() == before


class Interrupted(Exception):
    """The power went."""


@dataclass
class Watched:
    """The real store: counts what is read, and breaks off after so many objects."""

    store: Store
    left: int = -1
    moved: int = 0  # bytes

    def put(self, name: str, source: bytes, digest: Digest) -> None:
        """See Store."""
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        self.store.put(name, source, digest)

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """See Store."""
        for block in self.store.chunks(name, start):
            self.moved += len(block)
            yield block

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """See Store."""
        return self.store.entries(folder, after)


def test_a_rewrap_that_was_broken_off_goes_on(archive: Folder, keys: Keyring, place: Store) -> None:
    """After any number of objects; each is written once."""
    identity, recipient = somebody()
    written = 0
    for left in (0, 1, 1):
        with pytest.raises(Interrupted):
            let_in(Watched(place, left), keys, recipient)
        written += left
    assert len(let_in(place, keys, recipient).written) == 3 - written
    restore(archive, keys, identity, LATER)


def test_two_rewraps_at_once_agree(archive: Folder, keys: Keyring, place: Store) -> None:
    """Already there is fine: it is the same key for the same recipient."""
    identity, recipient = somebody()
    failed: list[BaseException] = []
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        try:
            let_in(place, keys, recipient)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    restore(archive, keys, identity)


def test_of_a_long_pack_only_the_end_is_read(archive: Folder, keys: Keyring, place: Store) -> None:
    """A terabyte is not fetched to wrap a few keys."""
    rows = b"".join(b"%d\t%s\n" % (n, wrap(b"noise", keys.recipients).hex().encode()) for n in range(4000))
    write(archive, keys, {"t1/0": (Kind.ROWS, [rows])}, "acme_2024-01-17_14-30-25")
    longest = max(entry.length for entry in place.entries("packs"))
    watched = Watched(place)
    let_in(watched, keys, somebody()[1])
    assert watched.moved < longest / 2


def test_without_rewrap_the_message_says_for_whom_it_was_made(archive: Folder, keys: Keyring) -> None:
    """And what to do."""
    identity, recipient = somebody()
    with pytest.raises(Failure) as caught:
        restore(archive, keys, identity)
    assert caught.value.reason is Reason.WRONG_KEY
    for words in (recipient, keys.recipients[0], BACKUP_ID, "tenant-backup rewrap"):
        assert words in caught.value.message
    assert "AGE-SECRET-KEY" not in caught.value.message


def test_the_cluster_alone_opens_no_row(archive: Folder, keys: Keyring) -> None:
    """With the tenant's own keys the catalogue opens, for the next backup; no pack does."""
    manifest = the_manifest(archive)
    reader = ArchiveReader(
        manifest, open_index_key(manifest, keys.index.secret, None, archive), None, archive
    )
    assert set(reader.catalogue().segments) == {"t1/0"}
    with pytest.raises(Failure) as caught:
        reader.check_identity()
    assert caught.value.reason is Reason.KEY_MISSING
    assert keys.recipients[0] in caught.value.message
    reader.close()


def test_what_the_tenant_did_not_sign_is_not_rewrapped(archive: Folder, keys: Keyring, place: Store) -> None:
    """A stranger's tenant in our prefix, wrapped to an identity that opens both: nothing of it is handed over."""
    stranger = Keyring.fresh()
    stranger.recipients = keys.recipients
    back_up(archive, stranger, "acme_2024-01-18_14-30-25")
    done = let_in(place, keys, somebody()[1])
    assert not any(stranger.index.key_id in name for name in done.written)
    assert (done.backups, done.data_keys, len(done.skipped)) == (2, 2, 1)
    assert "acme_2024-01-18_14-30-25" in done.skipped[0]


def test_a_planted_data_key_is_not_rewrapped(archive: Folder, keys: Keyring, place: Store) -> None:
    """A pack whose wrapped key was exchanged for another tenant's is damaged, not opened."""
    (pack, *_) = sorted((archive.root / "packs").glob("*/*"))
    data = bytearray(pack.read_bytes())
    wrapped = int.from_bytes(data[-16:-12], "big")
    end = len(data) - 16 - int.from_bytes(data[-12:-8], "big")
    while len(planted := wrap(b"k" * 32, keys.recipients)) != wrapped:
        pass  # age adds a stanza of random length
    data[end - wrapped : end] = planted
    pack.write_bytes(data)
    done = let_in(place, keys, somebody()[1])
    assert (done.data_keys, len(done.skipped)) == (1, 1)
    assert pack.name in done.skipped[0]


def test_a_missing_pack_does_not_keep_the_others_from_being_rewrapped(
    archive: Folder, keys: Keyring, place: Store
) -> None:
    """It is named."""
    (pack, *_) = sorted((archive.root / "packs").glob("*/*"))
    pack.unlink()
    done = let_in(place, keys, somebody()[1])
    assert (done.data_keys, len(done.skipped)) == (1, 1)
    assert pack.name in done.skipped[0]


def test_who_cannot_read_cannot_let_others_in(archive: Folder, keys: Keyring, place: Store) -> None:
    """Every backup is named with the reason, and nothing is written."""
    before = archive.names()
    done = let_in(place, keys, somebody()[1], by=somebody()[0])
    assert (done.written, len(done.skipped)) == ((), 2)
    assert archive.names() == before


def test_what_is_no_recipient_is_told_before_anything_is_written(keys: Keyring, place: Store) -> None:
    """The private half in place of the public one is the usual mistake: it must not be repeated in a log."""
    with pytest.raises(Failure) as caught:
        let_in(place, keys, somebody()[1], keys.identity_text)
    assert caught.value.reason is Reason.INVALID_SPEC
    assert keys.identity_text[12:] not in caught.value.message


def test_without_encryption_anybody_reads_without_an_identity(folder: Folder, keys: Keyring) -> None:
    """By our reader and by one written from the document."""
    readable = Keyring(keys.index, keys.signing, keys.identity_text, [], "None")
    back_up(folder, readable)
    restore(folder, readable, None)
    script = Backup(folder.root, BACKUP_ID, "", keys.public)
    assert b"".join(script.segment("t1/0")) == ROWS
    manifest = the_manifest(folder)
    assert (manifest.encryption.mode, manifest.encryption.recipients) == ("None", ())
    assert manifest.encryption.key_id != keys.index.key_id


def test_a_backup_without_encryption_gives_no_key_away(folder: Folder, keys: Keyring) -> None:
    """The tenant's index key and signing key protect its encrypted backups: neither is in the store."""
    back_up(folder, Keyring(keys.index, keys.signing, keys.identity_text, [], "None"))
    everything = b"".join((folder.root / name).read_bytes() for name in folder.names())
    assert keys.index.secret not in everything
    assert keys.signing.private_bytes_raw() not in everything
    assert keys.index.unencrypted().secret in everything


def test_the_tenants_keys_are_not_looked_for_beside_what_is_not_encrypted(
    folder: Folder, keys: Keyring
) -> None:
    """The message says so, and where they may be."""
    back_up(folder, Keyring(keys.index, keys.signing, keys.identity_text, [], "None"))
    with pytest.raises(Failure) as caught:
        KeyFinder(the_manifest(folder), keys.identity, reading(folder)).tenant_keys()
    assert caught.value.reason is Reason.KEY_MISSING
    assert "not encrypted" in caught.value.message


def test_rewrapping_leaves_what_is_not_encrypted_alone(archive: Folder, keys: Keyring, place: Store) -> None:
    """There is nothing to wrap."""
    readable = Keyring(keys.index, keys.signing, keys.identity_text, [], "None")
    back_up(archive, readable, "acme_2024-01-19_14-30-25")
    assert let_in(place, keys, somebody()[1]).backups == 2


def test_a_missing_readable_key_is_told(folder: Folder, keys: Keyring) -> None:
    """The cluster's own key makes it again."""
    readable = Keyring(keys.index, keys.signing, keys.identity_text, [], "None")
    back_up(folder, readable)
    (folder.root / names.readable_index_key(keys.index.unencrypted().key_id)).unlink()
    with pytest.raises(Failure) as caught:
        restore(folder, readable, None)
    assert caught.value.reason is Reason.KEY_MISSING
    assert open_index_key(the_manifest(folder), keys.index.secret, None, folder) == keys.index.unencrypted()


def test_a_whole_archive_made_by_a_stranger_is_refused(folder: Folder, keys: Keyring) -> None:
    """Packs, lists, keys and manifest for the public recipients, all in order but for who signed."""
    stranger = Keyring.fresh()
    stranger.identity_text, stranger.recipients = keys.identity_text, keys.recipients
    back_up(folder, stranger)
    restore(folder, stranger, keys.identity)  # it is a whole archive: nothing but the signature tells
    for mounted in (None, keys.index.secret):
        with pytest.raises(Failure) as caught:
            open_reader(folder, keys, mounted=mounted)
        assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_no_key_is_shown() -> None:
    """Neither by repr nor in an error."""
    keys = Keyring.fresh()
    shown = repr((keys.writer_keys(), keys.tenant, keys.identity, keys.index))
    for secret in (keys.index.secret, keys.signing.private_bytes_raw(), keys.writer_keys().data.secret):
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert "AGE-SECRET-KEY" not in shown


def test_a_run_that_is_to_be_encrypted_needs_a_recipient() -> None:
    """It is never written readable instead."""
    with pytest.raises(Failure) as caught:
        WriterKeys.fresh(Keyring.fresh().tenant, "Age", [])
    assert caught.value.reason is Reason.INVALID_SPEC


def test_the_set_of_recipients_has_one_name() -> None:
    """In any order, with or without duplicates."""
    one, other = somebody()[1], somebody()[1]
    assert recipient_set([one, other]) == recipient_set([other, one, one]) != recipient_set([one])
