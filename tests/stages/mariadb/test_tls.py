"""How the connection to a MariaDB server is protected, with a certificate of our own authority."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stages import preflight
from tests.engines.mariadb import MariaDB
from tests.stages.database.jobs import TENANT

Mode = Literal["Disable", "Prefer", "Require", "VerifyFull"]
_REQUEST = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]


def authority(folder: Path) -> Path:
    """A certificate that vouches for itself, for a server at 127.0.0.1."""
    folder.mkdir()
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "ca.crt")]
    subprocess.run([*_REQUEST, *subject, *files], check=True, capture_output=True)
    return folder / "ca.crt"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A server that takes no connection without TLS but on its Unix socket."""
    certificate = authority(tmp_path_factory.mktemp("tls") / "right")
    server = MariaDB()
    for file in (certificate, certificate.with_name("key.pem")):
        shutil.copy(file, server.folder)
        (server.folder / file.name).chmod(0o644)
    server.options = [f"--ssl-cert={server.folder}/ca.crt", f"--ssl-key={server.folder}/key.pem"]
    server.create()
    server.sql("CREATE DATABASE acme")
    server.sql("GRANT ALL PRIVILEGES ON acme.* TO tenant@'%' REQUIRE SSL")
    yield server
    server.remove()


def looked(server: MariaDB, mode: Mode, database: str = "acme") -> dict[str, Any]:
    """What a preflight says."""
    return preflight.run(jobs.Preflight(TENANT, replace(server.database(database), tls_mode=mode)))


def refused(server: MariaDB, mode: Mode, database: str = "acme") -> Reason:
    """Why there is no connection."""
    with pytest.raises(Failure) as caught:
        looked(server, mode, database)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["Prefer", "Require"])
def test_tls_is_used_where_the_server_offers_it(protected: MariaDB, pod: Path, mode: Mode) -> None:
    """The account may not connect without."""
    assert looked(protected, mode)["database"]["tables"] == 0


def test_without_tls_such_an_account_is_refused(protected: MariaDB, pod: Path) -> None:
    """Disable means what it says."""
    assert refused(protected, "Disable") is Reason.AUTHENTICATION_FAILED


def test_a_certificate_is_verified_against_the_authority_that_is_named(
    protected: MariaDB, pod: Path, tmp_path: Path
) -> None:
    """The right one opens the door, another one does not, and a missing one is named."""
    assert refused(protected, "VerifyFull") is Reason.KEY_MISSING
    mounted = pod / "secrets/database-ca"
    mounted.mkdir()
    shutil.copy(authority(tmp_path / "wrong"), mounted)
    assert refused(protected, "VerifyFull") is Reason.DATABASE_UNREACHABLE
    shutil.copy(protected.folder / "ca.crt", mounted)
    assert looked(protected, "VerifyFull")["database"]["tables"] == 0


@pytest.mark.parametrize("mode", ["Require", "VerifyFull"])
def test_a_server_without_tls_is_refused_where_it_is_required(
    maria: MariaDB, new_database: Callable[..., str], pod: Path, tmp_path: Path, mode: Mode
) -> None:
    """Nothing is read in the clear; the library alone would."""
    name = new_database()
    (pod / "secrets/database-ca").mkdir()
    shutil.copy(authority(tmp_path / "ca"), pod / "secrets/database-ca")
    assert refused(maria, mode, name) is Reason.DATABASE_UNREACHABLE
    assert looked(maria, "Prefer", name)["database"]["tables"] == 0
