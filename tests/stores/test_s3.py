"""What only a server across a network can do wrong; asked of a real one."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import Store, digest_in, digest_of, put_once, read

from . import s3_server
from .conftest import s3_place
from .s3_server import READER, WRITER, Proxy, S3Server


def refusal(store: Store) -> Failure:
    """What a small put meets."""
    with pytest.raises(Failure) as caught:
        store.put("packs/aa/one", b"x", digest_of(b"x"))
    return caught.value


@pytest.mark.timeout(30)
def test_a_store_nobody_listens_at_is_unavailable(tmp_path: Path) -> None:
    """After its own retries: retriable, with the network's own words."""
    place = s3_place(tmp_path, f"http://127.0.0.1:{s3_server.free_port()}")
    failure = refusal(place.connect())

    assert failure.reason is Reason.STORE_UNAVAILABLE
    assert failure.retriable
    assert "Connection refused" in failure.message


@pytest.mark.timeout(40)
def test_a_store_that_never_answers_is_unavailable(tmp_path: Path) -> None:
    """A server that accepts and stays silent does not hold us for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = s3_place(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        failure = refusal(place.connect())

    assert failure.reason is Reason.STORE_UNAVAILABLE
    assert "did not answer in time" in failure.message


def test_a_host_that_does_not_exist_is_unavailable(tmp_path: Path) -> None:
    """The resolver's own line is in the sentence."""
    failure = refusal(s3_place(tmp_path, "http://store.invalid").connect())

    assert failure.reason is Reason.STORE_UNAVAILABLE
    assert "lookup" in failure.message


def test_a_short_outage_is_survived(own_s3: S3Server, tmp_path: Path) -> None:
    """The server is down for two seconds: the put waits and then succeeds."""
    store = s3_place(tmp_path, own_s3.endpoint).connect()
    own_s3.stop()
    threading.Timer(2.0, own_s3.start).start()

    store.put("packs/aa/one", b"x", digest_of(b"x"))

    assert read(store, "packs/aa/one", 10) == b"x"


@pytest.mark.parametrize("length", [10, 9 << 20])
def test_a_put_whose_answer_was_lost_is_acknowledged(
    s3: S3Server, proxy: Proxy, tmp_path: Path, length: int
) -> None:
    """The object arrived, its answer did not; the retry meets "already exists" and reads it back."""
    data = os.urandom(length)
    lost: list[bytes] = []

    def lose_the_first(block: bytes) -> bytes | None:
        if lost or b"200 OK" not in block[:20]:
            return block
        lost.append(block)
        return None

    proxy.answer = lose_the_first
    place = s3_place(tmp_path, proxy.endpoint)
    put_once(place.connect(), "packs/aa/one", data, digest_of(data))

    assert lost
    assert digest_of(data) == digest_in(place.connect(), "packs/aa/one")


def test_bytes_changed_on_the_way_are_never_stored(s3: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    """The server checks the SHA-256 it was sent; the retry brings the true bytes."""
    data = b"S" * (2 << 20)
    changed: list[int] = []

    def flip_once(block: bytes) -> bytes:
        if not changed and block.startswith(b"SSSS"):
            changed.append(1)
            return b"T" + block[1:]
        return block

    proxy.request = flip_once
    place = s3_place(tmp_path, proxy.endpoint)
    place.connect().put("packs/aa/one", data, digest_of(data))

    assert changed
    assert digest_of(data) == digest_in(place.connect(), "packs/aa/one")


def test_bytes_changed_on_every_way_are_refused(s3: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    """A path that always damages ends as a failure, with no object."""
    proxy.request = lambda block: block.replace(b"SSSS", b"SSST")
    place = s3_place(tmp_path, proxy.endpoint)
    data = b"S" * 1000
    with pytest.raises(Failure) as caught:
        place.connect().put("packs/aa/one", data, digest_of(data))

    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert s3_place(tmp_path, s3.endpoint).connect().stat("packs/aa/one") is None


def test_a_download_that_breaks_goes_on_where_it_broke(s3: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    """Connections cut in the middle cost time, never bytes."""
    data = os.urandom(24 << 20)
    s3_place(tmp_path, s3.endpoint).connect().put("packs/aa/one", data, digest_of(data))
    passed, cuts = [0], [0]

    def cut_after_six_mib(block: bytes) -> bytes | None:
        passed[0] += len(block)
        if passed[0] > 6 << 20:
            passed[0] = 0
            cuts[0] += 1
            return None
        return block

    proxy.answer = cut_after_six_mib
    store = s3_place(tmp_path, proxy.endpoint).connect()

    assert digest_of(data) == digest_in(store, "packs/aa/one")
    assert cuts[0] >= 3


def test_an_unknown_access_key_is_permission_denied_in_single_account_mode(tmp_path: Path) -> None:
    """Versitygw says 404 to it: a missing object and a missing account are told apart by their codes."""
    with s3_server.running(tmp_path, accounts=False) as server:
        store = s3_place(tmp_path, server.endpoint, ("stranger", "nonsense")).connect()
        assert refusal(store).reason is Reason.STORE_PERMISSION_DENIED
        with pytest.raises(Failure) as caught:
            read(store, "TENANT", 100)
    assert caught.value.reason is Reason.STORE_PERMISSION_DENIED


@pytest.mark.parametrize("user", [("nobody", "secret-of-nobody"), (s3_server.ROOT[0], "wrong-secret")])
def test_wrong_keys_are_permission_denied_and_never_shown(
    s3: S3Server, tmp_path: Path, user: tuple[str, str]
) -> None:
    """The sentence names the Secret and the server's reason, not the keys; every call says the same."""
    store = s3_place(tmp_path, s3.endpoint, user).connect()
    for attempt in (
        lambda: store.put("a", b"x", digest_of(b"x")),
        lambda: store.stat("a"),
        lambda: list(store.entries("a")),
        lambda: list(store.chunks("a")),
        lambda: store.delete("a"),
    ):
        with pytest.raises(Failure) as caught:
            attempt()
        assert caught.value.reason is Reason.STORE_PERMISSION_DENIED
        assert "s3-keys" in caught.value.message
        assert user[0] not in caught.value.message
        assert user[1] not in str(caught.value)


def test_a_reader_may_read_and_is_refused_to_write(s3: S3Server, tmp_path: Path) -> None:
    """Rights are the server's; its refusal is StorePermissionDenied."""
    s3_place(tmp_path, s3.endpoint).connect().put("a", b"x", digest_of(b"x"))
    store = s3_place(tmp_path, s3.endpoint, READER).connect()

    assert read(store, "a", 10) == b"x"
    assert refusal(store).reason is Reason.STORE_PERMISSION_DENIED


def test_a_writer_without_the_right_to_delete_is_refused_to_delete(s3: S3Server, tmp_path: Path) -> None:
    """And the object is still there."""
    store = s3_place(tmp_path, s3.endpoint, WRITER).connect()
    store.put("a", b"x", digest_of(b"x"))
    with pytest.raises(Failure) as caught:
        store.delete("a")

    assert caught.value.reason is Reason.STORE_PERMISSION_DENIED
    assert store.stat("a") == 1


def test_a_bucket_that_does_not_exist_is_never_an_empty_store(s3: S3Server, tmp_path: Path) -> None:
    """Only objects are absent: a missing bucket is StoreNotFound, whatever is asked."""
    place = s3_place(tmp_path, s3.endpoint)
    object.__setattr__(place.described, "bucket", "no-such-bucket")
    store = place.connect()
    for attempt in (
        lambda: store.put("a", b"x", digest_of(b"x")),
        lambda: store.stat("a"),
        lambda: list(store.entries("a")),
        lambda: list(store.chunks("a")),
        lambda: store.delete("a"),
    ):
        with pytest.raises(Failure) as caught:
            attempt()
        assert caught.value.reason is Reason.STORE_NOT_FOUND


@pytest.mark.parametrize(
    ("present", "reason", "named"),
    [
        ([], Reason.SECRET_NOT_FOUND, '"s3-keys"'),
        (["accessKeyId"], Reason.KEY_MISSING, "secretAccessKey"),
        (["secretAccessKey"], Reason.KEY_MISSING, "accessKeyId"),
    ],
)
def test_missing_credentials_are_named(
    tmp_path: Path, present: list[str], reason: Reason, named: str
) -> None:
    """Secret and key are in the sentence; nothing waits for the network to say it."""
    place = s3_place(tmp_path, "http://127.0.0.1:1")
    for key in ("accessKeyId", "secretAccessKey"):
        if key not in present:
            (place.secrets / "store" / key).unlink()
    with pytest.raises(Failure) as caught:
        place.connect()

    assert caught.value.reason is reason
    assert named in caught.value.message


@pytest.fixture
def full_s3(tmp_path: Path) -> Iterator[S3Server]:
    """A server whose disk has 6 MiB."""
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", data], check=True)
    with s3_server.running(tmp_path, data=data) as server:
        yield server
    subprocess.run(["umount", data], check=True)


def test_a_full_server_is_store_full(full_s3: S3Server, tmp_path: Path) -> None:
    """The server's disk is full: StoreFull, and no object."""
    store = s3_place(tmp_path, full_s3.endpoint).connect()
    data = os.urandom(9 << 20)
    with pytest.raises(Failure) as caught:
        store.put("packs/aa/big", data, digest_of(data))

    assert caught.value.reason is Reason.STORE_FULL
    assert store.stat("packs/aa/big") is None


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store of a test")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "tls.crt", folder / "tls.key"


def test_a_private_authority_is_trusted_only_when_given(tmp_path: Path) -> None:
    """With ca.crt the store works; without it the sentence says what to set, at once."""
    tls = certificate(tmp_path)
    with s3_server.running(tmp_path, tls=tls) as server:
        place = s3_place(tmp_path, server.endpoint)
        failure = refusal(place.connect())
        trusted = place.secrets / "store-ca" / "ca.crt"
        trusted.parent.mkdir()
        trusted.write_bytes(tls[0].read_bytes())
        store = place.connect()
        store.put("a", b"x", digest_of(b"x"))

        assert read(store, "a", 10) == b"x"
    assert failure.reason is Reason.STORE_UNAVAILABLE
    assert "caSecretRef" in failure.message


def test_an_authority_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """Junk in ca.crt is the BackupStore's fault and is said so."""
    place = s3_place(tmp_path, "https://127.0.0.1:1")
    (place.secrets / "store-ca").mkdir()
    (place.secrets / "store-ca" / "ca.crt").write_text("junk")
    with pytest.raises(Failure) as caught:
        place.connect()

    assert caught.value.reason is Reason.INVALID_SPEC


def test_packs_are_sent_in_bounded_memory(s3: S3Server, tmp_path: Path) -> None:
    """Three packs of 64 MiB at once: the process stays below 256 MiB."""
    pack = tmp_path / "pack"
    pack.write_bytes(os.urandom(64 << 20))
    place = s3_place(tmp_path, s3.endpoint)
    script = f"""
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tenant_backup.contract.job import Store
from tenant_backup.stores import connect
from tenant_backup.stores.base import digest_of, view_of
store = connect({place.described!r}, "acme", secrets=Path({str(place.secrets)!r}))
pack = Path({str(pack)!r})
digest = digest_of(view_of(pack))
with ThreadPoolExecutor(3) as pool:
    list(pool.map(lambda n: store.put(f"packs/aa/{{n}}", pack, digest), range(6)))
status = Path("/proc/self/status").read_text()  # not ru_maxrss: it begins with the parent's
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert int(ended.stdout) < 256 << 20
