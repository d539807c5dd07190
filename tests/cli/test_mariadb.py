"""What the command line does with MariaDB: it makes, shows and verifies backups, and says what it cannot do yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyrage
import pytest
import yaml

from tests.cli.conftest import run
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.mariadb_fixtures import maria

__all__ = ["maria"]


@pytest.fixture
def store(maria: MariaDB, tmp_path: Path) -> list[str]:
    """STORE-URL of a tenant with one backup, and the options of whoever may read it."""
    identity = pyrage.x25519.Identity.generate()
    maria.sql("CREATE DATABASE shop")
    maria.sql("GRANT ALL PRIVILEGES ON shop.* TO tenant@'%'")
    maria.script(
        "shop", "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL)"
    )
    database = {"engine": "MariaDB", "host": "127.0.0.1", "port": maria.port, "name": "shop"}
    document = {
        "apiVersion": "tenantbackup.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "shop"},
        "spec": {
            "database": database | {"credentialsSecretRef": {"name": "db"}},
            "encryption": {"recipients": [str(identity.to_public())]},
        },
    }
    (tmp_path / "tenant.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "key.txt").write_text(f"{identity}\n")
    (tmp_path / "password").write_text(PASSWORDS["tenant"])
    (tmp_path / "lab").mkdir()
    login = ["--user", "tenant", "--password-file", tmp_path / "password"]
    url = f"file://{tmp_path}/lab/shop"
    done = run("backup", "--config", tmp_path / "tenant.yaml", "--store-url", url, *login)
    maria.sql("DROP DATABASE shop")
    assert done.returncode == 0, done.stderr
    (trust,) = set(re.findall(r"ed25519:[0-9a-f]{64}", done.stdout))
    return [url, "latest", "--trust", trust, "--identity", str(tmp_path / "key.txt")]


def test_a_backup_is_made_shown_and_verified(store: list[str]) -> None:
    """The archive is the same for every engine."""
    verified = run("verify", *store)
    assert verified.returncode == 0, verified.stderr
    shown = json.loads(run("inspect", *store, "--json").stdout)
    assert shown["tableList"][0] | {"bytes": 0} == {
        "name": "shop.t",
        "rows": 2,
        "bytes": 0,
        "excludedColumns": [],
        "withoutRows": False,
    }


def test_what_is_not_there_yet_is_said_before_anything_is_done(store: list[str], tmp_path: Path) -> None:
    """One sentence, and the way that there is."""
    server = ["--host", "127.0.0.1", "--user", "x", "--password-file", tmp_path / "password"]
    exported = run("export", *store, "-o", tmp_path / "out.sql")
    restored = run("restore", *store, *server, "--database", "copy")
    for done in (exported, restored):
        assert done.returncode == 1
        assert "MariaDB" in done.stderr and "TenantRestore" in done.stderr
    assert not (tmp_path / "out.sql").exists()
