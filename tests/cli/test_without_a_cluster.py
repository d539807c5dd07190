"""Backups made, handed on and tidied up by the command line alone."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from hack.lab.host_postgres import PASSWORD, HostPostgres
from tests.cli.conftest import COMMAND, Owner, into, make_owner, run

DAYS = 2 * 86400


def tenant_file(owner: Owner, **spec: Any) -> Path:
    """The Tenant as an operator would get it."""
    database = {
        "engine": "PostgreSQL",
        "host": "127.0.0.1",
        "port": owner.server.port,
        "name": owner.database,
    }
    document = {
        "apiVersion": "tenantbackup.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": owner.slug},
        "spec": {
            "database": database | {"credentialsSecretRef": {"name": "db"}},
            "encryption": {"recipients": [str(owner.identity.to_public())]},
            **spec,
        },
    }
    file = owner.folder / "tenant.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def back_up(owner: Owner, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `backup` on the tenant's file."""
    login = ["--user", owner.database, "--password-file", str(owner.password)]
    return run("backup", "--config", owner.folder / "tenant.yaml", "--store-url", owner.url, *login, *more)


@pytest.fixture
def alone(server: HostPostgres, tmp_path: Path) -> Owner:
    """A tenant without a cluster and without backups, and an empty folder for them."""
    owner = make_owner(server, tmp_path)
    owner.prefix.parent.mkdir(parents=True)
    tenant_file(owner)
    return owner


def trust(done: subprocess.CompletedProcess[str]) -> str:
    """The key that a first backup told us to keep."""
    found = re.search(r"ed25519:[0-9a-f]{64}", done.stderr)
    assert found, done.stderr
    return found[0]


def test_a_first_backup_makes_keys_that_only_its_owner_can_read_and_restores(alone: Owner) -> None:
    """From a Tenant's YAML to a restored database, no cluster anywhere."""
    first = back_up(alone)
    assert first.returncode == 0, first.stderr
    keys = alone.folder / "tenant.keys.yaml"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    alone.trusted = trust(first)
    copy = f"{alone.database}_copy"
    assert run(*into(alone, copy)).returncode == 0
    assert alone.dump(copy) == alone.dump(alone.database)


def test_a_second_backup_uses_the_same_keys_and_tells_nothing_about_them(alone: Owner) -> None:
    """Keys are made once and never overwritten."""
    first = back_up(alone)
    before = (alone.folder / "tenant.keys.yaml").read_bytes()
    second = back_up(alone, "--json")
    assert (second.returncode, second.stderr) == (0, "")
    assert (alone.folder / "tenant.keys.yaml").read_bytes() == before
    assert json.loads(second.stdout)["trust"] == trust(first)
    listed = json.loads(run("list", alone.url, "--trust", trust(first), "--json").stdout)["backups"]
    assert [backup["signature"] for backup in listed] == ["good", "good"]


def test_another_machine_with_keys_of_its_own_is_refused_the_prefix(alone: Owner) -> None:
    """A lost keys file is brought back, not replaced in silence."""
    back_up(alone)
    (alone.folder / "tenant.keys.yaml").unlink()
    again = back_up(alone)
    assert again.returncode == 1
    assert "StoreForeign" in again.stderr


def test_a_misspelled_field_is_refused_because_it_may_have_kept_passwords_out(alone: Owner) -> None:
    """No API server is there to say so."""
    columns = [{"table": "public.app_user", "column": "password_hash"}]
    tenant_file(alone, exclusion={"columns": columns})
    done = back_up(alone)
    assert done.returncode == 1
    assert "spec.exclusion is not a field of a Tenant" in done.stderr
    assert list(alone.prefix.parent.iterdir()) == []


def test_recovered_keys_are_the_tenants_own(owner: Owner) -> None:
    """As the Secret that the operator had made."""
    done = run("recover-keys", owner.url, *owner.reading)
    document = yaml.safe_load(done.stdout)
    data = {key: base64.b64decode(value) for key, value in document["data"].items()}
    assert data == {"indexKey": owner.chain.index_key, "signingKey": owner.chain.signing_seed}
    assert (document["metadata"]["namespace"], document["immutable"]) == ("lab", True)


def test_a_lost_keys_file_comes_back_from_the_store(alone: Owner) -> None:
    """`recover-keys` prints just what `backup` reads."""
    first = back_up(alone)
    keys = alone.folder / "tenant.keys.yaml"
    before = keys.read_bytes()
    keys.unlink()
    done = run("recover-keys", alone.url, "--identity", alone.key, "--trust", trust(first))
    assert done.stdout.encode() == before
    keys.write_text(done.stdout)
    assert back_up(alone).returncode == 0


def test_a_rewrapped_backup_opens_for_the_new_identity(own_owner: Owner, tmp_path: Path) -> None:
    """Who was added later reads what was there before."""
    other = pyrage.x25519.Identity.generate()
    key = tmp_path / "other.txt"
    key.write_text(str(other))
    reading = ["verify", own_owner.url, "latest", "--trust", own_owner.trust, "--identity", key]
    assert "WrongKey" in run(*reading).stderr
    done = run("rewrap", own_owner.url, *own_owner.reading, "--add", str(other.to_public()))
    assert done.returncode == 0, done.stderr
    assert run(*reading).returncode == 0


def test_collect_shows_first_and_deletes_only_when_told_and_a_grace_later(own_owner: Owner) -> None:
    """A pack of a deleted backup goes in the second call."""
    (own_owner.prefix / "manifests" / f"{own_owner.slug}_2026-01-01_00-00-00").unlink()
    objects = [path for folder in ("packs", "lists") for path in _files(own_owner.prefix / folder)]
    _age(own_owner.prefix)
    shown = json.loads(run("collect", own_owner.url, "--json").stdout)
    assert (len(shown["named"]), shown["deleted"]) == (len(objects), [])
    assert not (own_owner.prefix / "gc").exists()
    assert run("collect", own_owner.url, "--delete").returncode == 0
    assert all(path.exists() for path in objects)
    _age(own_owner.prefix)
    done = json.loads(run("collect", own_owner.url, "--delete", "--json").stdout)
    assert len(done["deleted"]) == len(objects)
    assert not any(path.exists() for path in objects)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _age(folder: Path) -> None:
    """Let the store's clock go on by two days."""
    for path in _files(folder):
        before = path.stat().st_mtime - DAYS
        os.utime(path, (before, before))


def test_what_the_recovery_sheet_says_works_as_it_stands(owner: Owner, tmp_path: Path) -> None:
    """Its commands are run as printed, in a folder with nothing but the identity."""
    done = run("recovery-sheet", owner.url, "--trust", owner.trust)
    assert done.returncode == 0, done.stderr
    (tmp_path / "key.txt").write_text(owner.key.read_text())
    for command in _commands(done.stdout, owner):
        ended = subprocess.run(
            ["bash", "-euc", command],
            cwd=tmp_path,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    assert owner.dump(f"{owner.slug.replace('-', '_')}_restored") == owner.dump(owner.database)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".sql", ".txt", ".yaml"]


def _commands(page: str, owner: Owner) -> list[str]:
    """The commands of a page; only where the server is has to be filled in."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ").replace("HOST", f"127.0.0.1 --port {owner.server.port}")
    program = " ".join(map(shlex.quote, COMMAND))
    lines = [line for line in text.splitlines() if line.startswith("tenant-backup ")]
    assert len(lines) == 5
    return [program + line.removeprefix("tenant-backup") for line in lines]


def test_a_recovery_sheet_is_refused_with_a_key_that_signed_nothing(owner: Owner) -> None:
    """A sheet with a wrong key is worse than none."""
    done = run("recovery-sheet", owner.url, "--trust", f"ed25519:{'0' * 64}")
    assert (done.returncode, done.stdout) == (1, "")
