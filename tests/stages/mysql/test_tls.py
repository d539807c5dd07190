"""How the connection to a MySQL server is protected, and what is sent over one that is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tenant_backup.contract.reasons import Reason
from tests.engines.mysql import MySQL
from tests.stages.mariadb.test_tls import authority, looked, refused

Make = Callable[..., str]


@pytest.fixture
def serve(maria: MySQL) -> Callable[[str, str, str], None]:
    """Give the server another authority, certificate and key; empty: it offers no TLS."""

    def change(ca: str, certificate: str, key: str) -> None:
        values = {"ssl_ca": ca, "ssl_cert": certificate, "ssl_key": key}
        maria.sql("SET " + ", ".join(f"GLOBAL {name} = '{value}'" for name, value in values.items()))
        maria.sql("ALTER INSTANCE RELOAD TLS NO ROLLBACK ON ERROR")
        maria.sql("FLUSH PRIVILEGES")  # forgets whose passwords it has seen: each is asked for in full

    return change


def test_tls_is_used_where_there_is_any_and_no_password_is_sent_without(
    maria: MySQL, new_database: Make, pod: Path, tmp_path: Path, serve: Callable[[str, str, str], None]
) -> None:
    """A certificate is verified against the authority that is named; in the clear a password is encrypted by itself.

    The client library takes a connection for which TLS was asked for one that has it: MySQL's plugin would
    send the password as it is, and the server refuse it.
    """
    name = new_database()
    for file in (authority(tmp_path / "right"), tmp_path / "right" / "key.pem"):
        shutil.copy(file, maria.folder)
        (maria.folder / file.name).chmod(0o644)
    certificate = str(maria.folder / "ca.crt")
    maria.sql("ALTER USER tenant@'%' REQUIRE SSL")
    try:
        serve(certificate, certificate, str(maria.folder / "key.pem"))
        assert [looked(maria, mode, name)["database"]["tables"] for mode in ("Prefer", "Require")] == [0, 0]
        assert refused(maria, "Disable", name) is Reason.AUTHENTICATION_FAILED
        mounted = pod / "secrets/database-ca"
        mounted.mkdir()
        shutil.copy(authority(tmp_path / "wrong"), mounted)
        assert refused(maria, "VerifyFull", name) is Reason.DATABASE_UNREACHABLE
        shutil.copy(certificate, mounted)
        assert looked(maria, "VerifyFull", name)["database"]["tables"] == 0
        maria.sql("ALTER USER tenant@'%' REQUIRE NONE")
        serve("", "", "")
        assert looked(maria, "Prefer", name)["database"]["tables"] == 0
        assert [refused(maria, mode, name) for mode in ("Require", "VerifyFull")] == [
            Reason.DATABASE_UNREACHABLE
        ] * 2
    finally:
        maria.sql("ALTER USER tenant@'%' REQUIRE NONE")
        serve("ca.pem", "server-cert.pem", "server-key.pem")
