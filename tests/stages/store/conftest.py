"""A pod with a real store of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stages.pod import Pod, new_pod
from tests.stores import s3_server
from tests.stores.s3_server import Proxy, S3Server

from .site import Site, s3_site, volume_site


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server with one bucket."""
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A faulty way to the S3 server."""
    way = Proxy(s3.port)
    yield way
    way.close()


@pytest.fixture
def empty_pod() -> Iterator[Pod]:
    """A pod in which `prepare` has not run."""
    with new_pod() as pod:
        yield pod


@pytest.fixture
def on_volume(empty_pod: Pod) -> Site:
    """A pod with a volume."""
    return volume_site(empty_pod).with_older_list()


@pytest.fixture
def on_s3(empty_pod: Pod, s3: S3Server) -> Site:
    """A pod with an S3 server."""
    return s3_site(empty_pod, s3.endpoint).with_older_list()


@pytest.fixture
def behind_proxy(empty_pod: Pod, proxy: Proxy) -> Site:
    """A pod whose way to the S3 server is faulty."""
    return s3_site(empty_pod, proxy.endpoint).with_older_list()


@pytest.fixture(params=["volume", "s3"])
def site(request: pytest.FixtureRequest) -> Site:
    """A pod with a store of each kind."""
    found: Site = request.getfixturevalue(f"on_{request.param}")
    return found
