"""What only a volume can do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import digest_of
from tenant_backup.stores.volume import ABANDONED_AFTER, INCOMING

from .conftest import Place, volume_place

NOBODY = 65534


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Place]:
    """A volume place on a file system of 4 MiB."""
    place = volume_place(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place.volume], check=True)
    yield place
    subprocess.run(["umount", place.volume], check=True)


def test_a_full_volume_is_store_full_and_nothing_is_left(small_volume: Place) -> None:
    """What did not fit leaves no object and gives its space back."""
    store = small_volume.connect()
    with pytest.raises(Failure) as caught:
        store.put("packs/aa/big", bytes(8 << 20), digest_of(bytes(8 << 20)))

    assert caught.value.reason is Reason.STORE_FULL
    assert "No space left on device" in caught.value.message
    assert store.stat("packs/aa/big") is None
    assert list((small_volume.volume / "prod/acme" / INCOMING).iterdir()) == []
    store.put("packs/aa/small", bytes(2 << 20), digest_of(bytes(2 << 20)))


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_volume_without_the_right_to_write_is_store_permission_denied(mode: int) -> None:
    """As a user who may not, the sentence says what to give."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        place = volume_place(Path(folder))
        place.volume.chmod(mode)
        said = what_nobody_is_told(place)

    assert said.startswith("StorePermissionDenied: volume:/prod/acme refused access (Permission denied)")


def what_nobody_is_told(place: Place) -> str:
    """Put something as an unprivileged user, in a process; return the failure."""
    script = f"""
import os, sys
from pathlib import Path
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores import connect
from tenant_backup.stores.base import digest_of
from tenant_backup.stores.volume import VolumeStore
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    store = connect(jobs.Store("volume", prefix="prod"), "acme", volume=Path({str(place.volume)!r}))
    store.put("packs/aa/one", b"x", digest_of(b"x"))
except Failure as failure:
    print(failure)
"""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_a_read_only_volume_is_store_permission_denied(small_volume: Place) -> None:
    """A file system mounted read-only refuses too."""
    subprocess.run(["mount", "-o", "remount,ro", small_volume.volume], check=True)
    with pytest.raises(Failure) as caught:
        small_volume.connect().put("packs/aa/one", b"x", digest_of(b"x"))

    assert caught.value.reason is Reason.STORE_PERMISSION_DENIED


def test_without_a_volume_the_store_is_unavailable(tmp_path: Path) -> None:
    """A claim that is not mounted is said, not created as a folder in the container."""
    with pytest.raises(Failure) as caught:
        connect(jobs.Store("volume"), "acme", volume=tmp_path / "nothing")

    assert caught.value.reason is Reason.STORE_UNAVAILABLE


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    """SIGKILL between writing and linking: the file is never listed, and later swept away."""
    place = volume_place(tmp_path)
    script = f"""
import os, signal
from pathlib import Path
from tenant_backup.contract import job as jobs
from tenant_backup.stores import connect, volume
from tenant_backup.stores.base import digest_of
volume._link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store = connect(jobs.Store("volume", prefix="prod"), "acme", volume=Path({str(place.volume)!r}))
store.put("packs/aa/one", b"x", digest_of(b"x"))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    store, incoming = place.connect(), place.volume / "prod/acme" / INCOMING
    (left,) = incoming.iterdir()

    assert ended.returncode == -9
    assert list(store.entries("packs")) == []
    store.put("packs/aa/two", b"y", digest_of(b"y"))
    assert [left] == list(incoming.iterdir()), "a writer of today may still be alive"

    old = time.time() - ABANDONED_AFTER - 1
    os.utime(left, (old, old))
    store.put("packs/aa/three", b"z", digest_of(b"z"))
    assert list(incoming.iterdir()) == []


def test_a_symbolic_link_never_leads_out_of_the_volume(tmp_path: Path) -> None:
    """Neither a planted folder nor a planted file is followed."""
    place = volume_place(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_bytes(b"secret")
    root = place.volume / "prod/acme"
    (root / "manifests").mkdir(parents=True)
    (root / "packs").symlink_to(outside)
    (root / "manifests/one").symlink_to(outside / "one")
    store = place.connect()

    for attempt in (
        lambda: store.put("packs/two", b"x", digest_of(b"x")),
        lambda: list(store.chunks("packs/one")),
        lambda: list(store.chunks("manifests/one")),
    ):
        with pytest.raises(Failure):
            attempt()
    assert [item.name for item in outside.iterdir()] == ["one"]
    assert list(store.entries("manifests")) == []


def test_a_prefix_never_leads_out_of_the_volume(tmp_path: Path) -> None:
    """A BackupStore with `..` in its prefix is refused."""
    with pytest.raises(Failure) as caught:
        connect(jobs.Store("volume", prefix="../.."), "acme", volume=tmp_path)

    assert caught.value.reason is Reason.INVALID_SPEC
