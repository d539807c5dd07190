"""Every damage, move, swap and forgery is found before a damaged byte is handed on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from tenant_backup.archive import chunks as chunks_module
from tenant_backup.archive import names
from tenant_backup.archive import writer as writer_module
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import Identity, wrap
from tenant_backup.archive.manifest import CataloguePlace, Manifest, document, parse, sign
from tenant_backup.archive.pack import Binding, ObjectRef, PackKind, PackReader
from tenant_backup.archive.reader import open_manifest
from tenant_backup.archive.writer import Written
from tenant_backup.contract.reasons import Failure, Reason
from tests.archive.sample import (
    BACKUP_ID,
    Folder,
    Keyring,
    Segments,
    describe,
    known_from,
    open_reader,
    read_all,
    write,
)

ROWS = b"".join(b"%d\trow %d\n" % (n, n * n) for n in range(40))
BLOB = b"CREATE TABLE t (a int, b text)"
CONTENTS = {"t1/0": ROWS, "schema": BLOB}
MANIFEST = names.manifest(BACKUP_ID)
REF = ObjectRef("0" * 32, 100, "0" * 64, 200)
SAMPLE = describe(Keyring.fresh(), Written((), (REF,), CataloguePlace(REF.id, 0, 1), 0, 0))
TENANT = ("acme", "default", "acme")
SECOND = "acme_2024-01-16_14-30-25"
AFTER = {"t1/0": ROWS, "t2/0": ROWS.replace(b"row 1521", b"changed"), "schema": BLOB}


def segments_of(contents: dict[str, bytes]) -> Segments:
    """These bytes as a dump would send them."""
    return {name: (Kind.BLOB if name == "schema" else Kind.ROWS, [data]) for name, data in contents.items()}


@pytest.fixture
def archive(folder: Folder, keys: Keyring) -> Folder:
    """A backup of about a kilobyte."""
    write(folder, keys, {"t1/0": (Kind.ROWS, [ROWS]), "schema": (Kind.BLOB, [BLOB])})
    return folder


def restore(archive: Folder, keys: Keyring, *, mounted: bytes | None = None) -> dict[str, bytes]:
    """Restore, and check that every block handed on is a piece of what was written."""

    def hand_on(segment: str, block: bytes) -> None:
        assert block in CONTENTS[segment]

    return read_all(open_reader(archive, keys, mounted=mounted), hand_on)


def failure_of(archive: Folder, keys: Keyring, *, mounted: bytes | None = None) -> Failure:
    """The failure of a restore that must not succeed."""
    with pytest.raises(Failure) as caught:
        restore(archive, keys, mounted=mounted)
    return caught.value


def object_names(archive: Folder, folder: str) -> list[str]:
    return [name for name in archive.names() if name.startswith(folder + "/")]


def expected_reasons(name: str) -> set[Reason]:
    if name.startswith("manifests/"):
        return {Reason.SIGNATURE_INVALID, Reason.UNSUPPORTED_CONTENT}  # the version may be what flipped
    if name.startswith("keys/"):
        return {
            Reason.WRONG_KEY,
            Reason.KEY_MISSING,
        }  # nothing but the identity's owner can tell damage from a stranger's key
    return {Reason.CHECKSUM_MISMATCH}


def test_every_flipped_bit_of_every_object_is_found(archive: Folder, keys: Keyring) -> None:
    """Without any checksum from the store or the manifest, with the index key taken from the store."""
    for name in archive.names():
        data = (archive.root / name).read_bytes()
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << (at % 8)
            archive.put(name, bytes(flipped))
            assert failure_of(archive, keys).reason in expected_reasons(name), (name, at)
        archive.put(name, data)
    assert restore(archive, keys) == CONTENTS


@pytest.fixture
def second(archive: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A backup after that one, some of whose rows changed: it needs packs and index packs of both."""
    monkeypatch.setattr(chunks_module, "CHUNK_MIN", 256)
    monkeypatch.setattr(chunks_module, "CHUNK_MAX", 1024)
    write(archive, keys, segments_of(CONTENTS))  # with chunks so small that most of them stay
    write(archive, keys, segments_of(AFTER), SECOND, known_from(archive, keys, BACKUP_ID))
    return archive


def index_pack_of(manifest: Manifest, archive: Folder, keys: Keyring) -> PackReader:
    """The one with the catalogue."""
    list_id, index = manifest.catalogue.list, keys.writer_keys().index
    binding = Binding(PackKind.INDEX, list_id, "acme", index)
    path = archive.root / names.index_pack(list_id)
    return PackReader(path, binding, lambda _: index.frame_key(list_id))


def test_every_flipped_bit_of_what_an_incremental_backup_needs_is_found(
    second: Folder, keys: Keyring
) -> None:
    """Of its own objects and of those it refers to; but nobody looks at an older backup's catalogue."""
    manifest = parse((second.root / names.manifest(SECOND)).read_bytes())
    older = parse((second.root / MANIFEST).read_bytes())
    assert set(manifest.packs) & set(older.packs) and set(manifest.lists) & set(older.lists)
    assert manifest.bytes.added < manifest.bytes.stored

    def hand_on(segment: str, block: bytes) -> None:
        assert block in AFTER[segment]

    def reason() -> Reason | None:
        try:
            assert read_all(open_reader(second, keys, backup_id=SECOND), hand_on) == AFTER
        except Failure as failure:
            return failure.reason
        return None

    needed = [names.pack(ref.id) for ref in manifest.packs]
    needed += [names.index_pack(ref.id) for ref in manifest.lists] + [names.manifest(SECOND)]
    unseen = dict.fromkeys(needed, 0)
    for name in needed:
        data = (second.root / name).read_bytes()
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << (at % 8)
            second.put(name, bytes(flipped))
            found = reason()
            unseen[name] += found is None
            assert found in {None, *expected_reasons(name)}, (name, at)
        second.put(name, data)
    assert reason() is None
    assert {name for name, count in unseen.items() if count} == {names.index_pack(older.catalogue.list)}
    with closing(index_pack_of(older, second, keys)) as pack:
        catalogue = range(older.catalogue.first, older.catalogue.first + older.catalogue.frames)
        assert sum(unseen.values()) == sum(pack.frames[number].sealed for number in catalogue)


def test_every_truncation_of_every_object_is_found(archive: Folder, keys: Keyring) -> None:
    """At every length from none to one byte less; and one byte more."""
    for name in archive.names():
        data = (archive.root / name).read_bytes()
        for cut in [*(data[:at] for at in range(len(data))), data + b"\0"]:
            archive.put(name, cut)
            assert failure_of(archive, keys).reason in expected_reasons(name), (name, len(cut))
        archive.put(name, data)


def test_damage_inside_a_pack_is_found_when_the_store_hides_it(archive: Folder, keys: Keyring) -> None:
    """The length is right and nobody compares checksums: the message names the pack."""
    (name,) = object_names(archive, "packs")
    data = bytearray((archive.root / name).read_bytes())
    data[100] ^= 1
    archive.put(name, bytes(data))
    failure = failure_of(archive, keys)
    assert failure.reason is Reason.CHECKSUM_MISMATCH
    assert name in failure.message


def test_two_packs_in_each_others_place_are_found(
    folder: Folder, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are genuine packs of this run and of the same length."""
    monkeypatch.setattr(writer_module, "PACK_TARGET", 1)  # a pack per frame
    write(folder, keys, {"t1/0": (Kind.ROWS, [b"1\n"]), "t1/1": (Kind.ROWS, [b"2\n"])})
    first, second = object_names(folder, "packs")
    assert folder.length(first) == folder.length(second)
    one, other = (folder.root / first).read_bytes(), (folder.root / second).read_bytes()
    folder.put(first, other)
    folder.put(second, one)
    assert failure_of(folder, keys).reason is Reason.CHECKSUM_MISMATCH


def test_a_pack_of_an_earlier_backup_does_not_stand_in(folder: Folder, keys: Keyring, tmp_path: Path) -> None:
    """Even renamed inside its own header, which is not secret."""
    write(folder, keys, {"t1/0": (Kind.ROWS, [b"1\n"])})
    (old,) = object_names(folder, "packs")
    other = Folder(tmp_path / "other")
    other.root.mkdir()
    write(other, keys, {"t1/0": (Kind.ROWS, [b"1\n"])})
    (new,) = object_names(other, "packs")
    replayed = bytearray((folder.root / old).read_bytes())
    replayed[16:32] = bytes.fromhex(new.rsplit("/", 1)[1])
    other.put(new, bytes(replayed))
    assert failure_of(other, keys).reason is Reason.CHECKSUM_MISMATCH


@pytest.mark.parametrize("kind", ["packs", "lists"])
def test_a_missing_object_is_found_before_the_restore_starts(
    archive: Folder, keys: Keyring, kind: str
) -> None:
    """Nothing was fetched but the manifest and the key."""
    (name,) = object_names(archive, kind)
    (archive.root / name).unlink()
    failure = failure_of(archive, keys, mounted=keys.index.secret)
    assert failure.reason is Reason.PACK_MISSING
    assert name in failure.message
    assert archive.fetched == []


def test_a_manifest_signed_by_somebody_else_is_refused(archive: Folder, keys: Keyring) -> None:
    """Whoever can write the store can encrypt for the recipients, but not sign."""
    manifest = parse((archive.root / MANIFEST).read_bytes())
    archive.put(MANIFEST, sign(manifest, Ed25519PrivateKey.generate()))
    assert failure_of(archive, keys).reason is Reason.SIGNATURE_INVALID


def test_a_manifest_without_signature_is_refused(archive: Folder, keys: Keyring) -> None:
    """The readable part alone, well-formed."""
    document = json.loads((archive.root / MANIFEST).read_bytes())
    del document["signature"]
    archive.put(MANIFEST, json.dumps(document).encode())
    assert failure_of(archive, keys).reason is Reason.SIGNATURE_INVALID


def test_another_backups_manifest_under_this_name_is_refused(archive: Folder, keys: Keyring) -> None:
    """A genuine, older one: a replay."""
    manifest = parse((archive.root / MANIFEST).read_bytes())
    older = dataclasses.replace(manifest, backup_id="acme_2023-01-01_00-00-00")
    archive.put(MANIFEST, sign(older, keys.signing))
    failure = failure_of(archive, keys)
    assert failure.reason is Reason.SIGNATURE_INVALID
    assert "acme_2023-01-01_00-00-00" in failure.message


def test_a_backup_of_another_tenant_is_refused(archive: Folder, keys: Keyring) -> None:
    """With the right signature: two Tenant objects may have shared a key Secret."""
    data = (archive.root / MANIFEST).read_bytes()
    with pytest.raises(Failure) as caught:
        open_manifest(data, keys.public, BACKUP_ID, ("acme", "default", "other"))
    assert caught.value.reason is Reason.CROSS_TENANT_ACCESS


def test_a_manifest_that_is_not_the_committed_one_is_refused(archive: Folder, keys: Keyring) -> None:
    """The cluster remembers the checksum."""
    data = (archive.root / MANIFEST).read_bytes()
    right = hashlib.sha256(data).hexdigest()
    assert open_manifest(data, keys.public, BACKUP_ID, TENANT, right).backup_id == BACKUP_ID
    with pytest.raises(Failure) as caught:
        open_manifest(data, keys.public, BACKUP_ID, TENANT, "0" * 64)
    assert caught.value.reason is Reason.CHECKSUM_MISMATCH


def test_a_newer_format_says_so(archive: Folder, keys: Keyring) -> None:
    """Signed or not, known or not: the version is what helps."""
    manifest = parse((archive.root / MANIFEST).read_bytes())
    archive.put(MANIFEST, sign(dataclasses.replace(manifest, format_version=2), keys.signing))
    failure = failure_of(archive, keys)
    assert failure.reason is Reason.UNSUPPORTED_CONTENT
    assert "version 2" in failure.message
    archive.put(MANIFEST, b'{"formatVersion":3,"how":"unknown"}')
    assert failure_of(archive, keys).reason is Reason.UNSUPPORTED_CONTENT


def test_a_wrong_identity_is_told_before_anything_is_read(archive: Folder, keys: Keyring) -> None:
    """Also when the cluster's own index key opens the lists."""
    stranger = Keyring.fresh().identity
    for mounted in (None, keys.index.secret):
        with pytest.raises(Failure) as caught:
            open_reader(archive, keys, mounted=mounted, identity=stranger)
        assert caught.value.reason is Reason.WRONG_KEY


def test_what_is_no_identity_is_told() -> None:
    """The public key in place of the private one is the usual mistake."""
    with pytest.raises(Failure) as caught:
        Identity.parse("age1qqqqqq\n")
    assert caught.value.reason is Reason.WRONG_KEY


def test_the_identity_alone_restores_when_the_cluster_is_lost(archive: Folder, keys: Keyring) -> None:
    """No key mounted, or the key of a new cluster: the index key comes from the store."""
    assert restore(archive, keys) == CONTENTS
    assert restore(archive, keys, mounted=b"n" * 32) == CONTENTS


def test_the_mounted_key_restores_when_the_store_lost_its_copy(archive: Folder, keys: Keyring) -> None:
    """And without either it is KeyMissing."""
    (name,) = object_names(archive, "keys")
    (archive.root / name).unlink()
    assert restore(archive, keys, mounted=keys.index.secret) == CONTENTS
    assert failure_of(archive, keys).reason is Reason.KEY_MISSING


def test_a_forged_index_key_in_the_store_is_not_used(archive: Folder, keys: Keyring) -> None:
    """Anybody may wrap a key to public recipients; its id does not fit the signed manifest."""
    (name,) = object_names(archive, "keys")
    forger = Keyring.fresh()
    forger.recipients = keys.recipients
    archive.put(name, wrap(forger.tenant.joined(), keys.recipients))
    assert failure_of(archive, keys).reason is Reason.KEY_MISSING
    assert restore(archive, keys, mounted=keys.index.secret) == CONTENTS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.binary())
def test_bytes_that_are_no_manifest_are_told_as_such(data: bytes) -> None:
    """Whatever lies in a store's folder of manifests, listing it meets a reason and not a bug."""
    with pytest.raises(Failure):
        parse(data)


@given(member=st.sampled_from(sorted(document(SAMPLE))), value=JSON)
def test_a_member_of_another_type_is_told_with_its_place(member: str, value: object) -> None:
    """Every member of a manifest, replaced by anything."""
    changed = {**document(SAMPLE), member: value}
    assume(changed != document(SAMPLE) and type(value) is not type(document(SAMPLE)[member]))
    with pytest.raises(Failure) as caught:
        parse(json.dumps(changed).encode())
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT or f"manifest.{member}" in caught.value.message
