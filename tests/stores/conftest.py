"""A store of every kind, real: a directory, and a versitygw server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store
from tests.stores import s3_server
from tests.stores.s3_server import BUCKET, ROOT, Proxy, S3Server


@dataclass
class Place:
    """What `connect` needs to reach one store, with files where a pod would have them."""

    described: jobs.Store
    secrets: Path
    volume: Path

    def connect(self, under: str = "acme") -> Store:
        """The store, as a stage would see it."""
        return connect(self.described, under, secrets=self.secrets, volume=self.volume)


def s3_place(folder: Path, endpoint: str, user: tuple[str, str] = ROOT, prefix: str = "") -> Place:
    """An S3 place whose Secret holds `user`."""
    secret = folder / "secrets" / "store"
    secret.mkdir(parents=True, exist_ok=True)
    for key, value in zip(("accessKeyId", "secretAccessKey"), user, strict=True):
        (secret / key).write_text(value)
    described = jobs.Store("s3", BUCKET, prefix or folder.name, endpoint, "", "s3-keys")
    return Place(described, folder / "secrets", folder / "no-volume")


def volume_place(folder: Path) -> Place:
    """A volume place in a new directory."""
    (folder / "volume").mkdir(parents=True, exist_ok=True)
    return Place(jobs.Store("volume", prefix="prod"), folder / "no-secrets", folder / "volume")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server with one bucket."""
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server of this test's own, to be stopped and started."""
    (tmp_path / "own").mkdir()
    with s3_server.running(tmp_path / "own") as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A faulty way to the S3 server."""
    way = Proxy(s3.port)
    yield way
    way.close()


@pytest.fixture(params=["volume", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new, empty place of each kind."""
    if request.param == "volume":
        return volume_place(tmp_path)
    server: S3Server = request.getfixturevalue("s3")
    return s3_place(tmp_path, server.endpoint)


@pytest.fixture
def store(place: Place) -> Store:
    """A new, empty store of each kind."""
    return place.connect()
