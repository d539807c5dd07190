"""What `stores.base` promises, asked of every store. A store that lies fails here."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import (
    AlreadyExistsError,
    Digest,
    NotFoundError,
    Store,
    digest_in,
    digest_of,
    fetch,
    put_once,
    read,
)

from .conftest import Place

PACK = 9 << 20  # bytes: several blocks, one long upload


def create(store: Store, name: str, data: bytes) -> None:
    store.put(name, data, digest_of(data))


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) + 1, PACK])
def test_what_was_put_is_what_is_read(store: Store, tmp_path: Path, length: int) -> None:
    """Bytes of any length come back the same, from memory and from a file."""
    data = os.urandom(length)
    source = tmp_path / "source"
    source.write_bytes(data)

    create(store, "packs/aa/memory", data)
    store.put("packs/aa/file", source, digest_of(data))

    assert data == read(store, "packs/aa/memory", PACK)
    assert digest_of(data) == fetch(store, "packs/aa/file", tmp_path / "target")
    assert data == (tmp_path / "target").read_bytes()
    assert length == store.stat("packs/aa/file")


@pytest.mark.parametrize("start", [1, 1 << 20, PACK - 1])
def test_an_object_can_be_read_from_the_middle_on(store: Store, start: int) -> None:
    """The end of a pack is read without the rest."""
    data = os.urandom(PACK)
    create(store, "packs/aa/one", data)

    assert b"".join(store.chunks("packs/aa/one", start)) == data[start:]


def test_an_object_has_the_time_it_was_created(store: Store) -> None:
    """By one clock for all, in seconds; it stays what it was."""
    create(store, "packs/aa/one", b"1")
    (first,) = store.entries("packs")
    create(store, "packs/aa/two", b"2")
    one, two = store.entries("packs")

    assert first == one
    assert one.modified <= two.modified <= one.modified + 600
    assert abs(time.time() - one.modified) < 600, "a store on this machine has this machine's time"


def test_an_object_is_never_overwritten(store: Store) -> None:
    """The second put of a name is refused and changes nothing, whatever its length."""
    create(store, "manifests/one", b"first")

    for second in (b"second", b"first", b"", os.urandom(PACK)):
        with pytest.raises(AlreadyExistsError):
            create(store, "manifests/one", second)

    assert read(store, "manifests/one", 100) == b"first"


def test_of_many_writers_of_one_name_exactly_one_wins(place: Place) -> None:
    """Create-only holds between connections at the same moment; the winner's bytes are there."""
    contents = [bytes([number]) * 100_000 for number in range(8)]
    start = threading.Barrier(len(contents))
    won: list[bytes] = []

    def write(data: bytes) -> None:
        store = place.connect()
        start.wait()
        try:
            create(store, "manifests/contested", data)
            won.append(data)
        except AlreadyExistsError:
            pass

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert won[0] == read(place.connect(), "manifests/contested", 200_000)


def test_a_source_that_is_not_what_was_announced_is_refused(store: Store, tmp_path: Path) -> None:
    """A spool file damaged after it was hashed never becomes an object."""
    source = tmp_path / "source"
    source.write_bytes(b"damaged")

    for wrong in (digest_of(b"as hashed"), Digest(6, digest_of(b"damaged").sha256)):
        with pytest.raises(Failure) as caught:
            store.put("packs/aa/one", source, wrong)
        assert caught.value.reason is Reason.CHECKSUM_MISMATCH

    assert store.stat("packs/aa/one") is None
    assert list(store.entries("packs")) == []


def test_putting_the_same_again_is_acknowledged(store: Store) -> None:
    """A retry after a lost answer finds its own bytes and is content."""
    put_once(store, "packs/aa/one", b"same", digest_of(b"same"))
    put_once(store, "packs/aa/one", b"same", digest_of(b"same"))

    assert read(store, "packs/aa/one", 100) == b"same"


def test_a_name_taken_by_other_bytes_is_name_taken(store: Store) -> None:
    """Somebody else's object is reported and left as it is."""
    create(store, "packs/aa/one", b"theirs")

    with pytest.raises(Failure) as caught:
        put_once(store, "packs/aa/one", b"mine", digest_of(b"mine"))

    assert caught.value.reason is Reason.NAME_TAKEN
    assert read(store, "packs/aa/one", 100) == b"theirs"


def test_what_is_absent_is_said_to_be_absent(store: Store) -> None:
    """No object: NotFound when read, None when asked for, nothing listed, nothing to delete."""
    with pytest.raises(NotFoundError):
        digest_in(store, "packs/aa/none")
    assert store.stat("packs/aa/none") is None
    assert list(store.entries("packs")) == []
    store.delete("packs/aa/none")


def test_the_list_is_sorted_complete_and_starts_where_asked(store: Store) -> None:
    """All of a folder, of that folder only, in the order of the full names, with lengths."""
    names = ["packs/a/b", "packs/a-b", "packs/a/c/d", "packs/a.b", "packs/b", "packs/a0"]
    for length, name in enumerate(names):
        create(store, name, b"x" * length)
    create(store, "packsandmore/x", b"")
    create(store, "manifests/x", b"")

    assert sorted(names) == [entry.name for entry in store.entries("packs")]
    assert {name: length for length, name in enumerate(names)} == {
        entry.name: entry.length for entry in store.entries("packs")
    }
    for after in (*names, "packs/a", "packs/zzz"):
        expected = [name for name in sorted(names) if name > after]
        assert expected == [entry.name for entry in store.entries("packs", after)]


def test_a_list_longer_than_one_page_is_complete(store: Store) -> None:
    """2,100 objects: more than two pages of an S3 server."""
    names = [f"lists/{number:05d}" for number in range(2100)]
    for name in names:
        create(store, name, b"")

    assert names == [entry.name for entry in store.entries("lists")]


def test_folders_are_the_first_parts_of_names_once_each(store: Store, place: Place) -> None:
    """The tenants of a store are found without listing all they have; also at the root of a bucket."""
    for name in ("b/1", "a/1/2", "a/3", "c-d/4", "top"):
        store.put(name, b"x", digest_of(b"x"))
    assert list(store.folders()) == ["a", "b", "c-d"]
    assert "acme" in list(place.connect("").folders())
    assert list(place.connect("nobody").folders()) == []


def test_deleted_is_gone(store: Store) -> None:
    """A deleted object is neither read nor listed, and its name is free."""
    create(store, "manifests/one", b"1")
    store.delete("manifests/one")

    assert store.stat("manifests/one") is None
    assert list(store.entries("manifests")) == []
    create(store, "manifests/one", b"2")
    assert read(store, "manifests/one", 10) == b"2"


def test_one_tenant_never_sees_another(place: Place) -> None:
    """Stores below different roots share nothing, also when one name begins with the other."""
    create(place.connect("acme"), "manifests/one", b"acme")

    for other in (place.connect("acme-2"), place.connect("acm")):
        assert other.stat("manifests/one") is None
        assert list(other.entries("manifests")) == []


@pytest.mark.parametrize(
    "name", ["../other", "a/../../b", "/etc/passwd", "", "a//b", "a/.hidden", ".", "a\0b"]
)
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    """Names come from manifests, which come from the store: they are not trusted."""
    with pytest.raises(ValueError, match="not a store name"):
        create(store, name, b"")
    with pytest.raises(ValueError, match="not a store name"):
        read(store, name, 10)


def test_an_object_longer_than_allowed_is_not_read_into_memory(store: Store) -> None:
    """A manifest of unreasonable size is refused while it is read."""
    create(store, "manifests/big", b"x" * 3_000_000)

    with pytest.raises(Failure):
        read(store, "manifests/big", 1000)


def test_the_location_names_the_place(store: Store) -> None:
    """People find the objects by what `location` says."""
    assert store.location.endswith("/acme")
