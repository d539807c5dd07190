"""Every error that somebody may meet at night, read aloud: exit code, and one sentence that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from tests.cli.conftest import Owner, into, run
from tests.stores import s3_server
from tests.stores.s3_server import BUCKET, ROOT, S3Server


@pytest.fixture(scope="module")
def s3(owner: Owner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with the tenant's objects below prod/."""
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        shutil.copytree(owner.prefix, server.data / BUCKET / "prod" / owner.slug)
        yield server


def credentials(pair: tuple[str, str] = ROOT) -> dict[str, str]:
    """What AWS tools read from the environment."""
    return {"AWS_ACCESS_KEY_ID": pair[0], "AWS_SECRET_ACCESS_KEY": pair[1]}


def s3_url(server: S3Server, path: str) -> str:
    """STORE-URL of the server."""
    return f"s3://{path}?endpoint={server.endpoint}&region=us-east-1"


def test_a_bucket_is_read_from_the_environment_and_from_a_file(
    owner: Owner, s3: S3Server, tmp_path: Path
) -> None:
    """Tenants below the bucket's prefix, and the backups of one."""
    tenants = run("list", s3_url(s3, f"{BUCKET}/prod"), "--json", **credentials())
    assert [each["slug"] for each in json.loads(tenants.stdout)["tenants"]] == [owner.slug]
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {ROOT[0]}\naws_secret_access_key = {ROOT[1]}\n")
    url = s3_url(s3, f"{BUCKET}/prod/{owner.slug}")
    verified = run("verify", url, "latest", *owner.reading, "--credentials", file)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_root_of_a_bucket_names_its_tenants(owner: Owner, s3: S3Server) -> None:
    """Also when somebody leaves the prefix out, there is an answer."""
    shutil.copytree(owner.prefix, s3.data / BUCKET / owner.slug)
    tenants = run("list", s3_url(s3, BUCKET), "--json", **credentials())
    assert [each["slug"] for each in json.loads(tenants.stdout)["tenants"]] == [owner.slug]


def test_a_restore_from_a_bucket_leaves_no_secret_behind(
    owner: Owner, s3: S3Server, short_path: Path
) -> None:
    """The same stages, with credentials in files."""
    arguments = into(owner, f"{owner.database}_s3")
    arguments[1] = s3_url(s3, f"{BUCKET}/prod/{owner.slug}")
    done = run(*arguments, TMPDIR=str(short_path), **credentials())
    assert (done.returncode, done.stderr) == (0, "")
    assert list(short_path.iterdir()) == []


def test_no_such_bucket(s3: S3Server) -> None:
    """The bucket is named."""
    done = run("list", s3_url(s3, "nowhere/acme"), **credentials())
    assert done.returncode == 1
    assert "StoreNotFound: the store s3://nowhere" in done.stderr


def test_refused_credentials_are_not_repeated(s3: S3Server) -> None:
    """The secret is nowhere in what is said."""
    done = run("list", s3_url(s3, f"{BUCKET}/prod"), **credentials((ROOT[0], "a-wrong-secret")))
    assert done.returncode == 1
    assert "StorePermissionDenied" in done.stderr
    assert "a-wrong-secret" not in done.stderr + done.stdout


def test_missing_credentials(s3: S3Server) -> None:
    """Both variables are named."""
    done = run("list", s3_url(s3, f"{BUCKET}/prod"))
    assert done.returncode == 1
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY not set" in done.stderr


def test_a_store_that_cannot_be_reached_may_be_tried_again() -> None:
    """Exit code 75, for scripts."""
    url = f"s3://b/acme?endpoint=http://127.0.0.1:{s3_server.free_port()}"
    done = run("list", url, **credentials())
    assert (done.returncode, done.stderr.split(":")[0]) == (75, "StoreUnavailable")


@pytest.mark.parametrize(
    "url", ["/mnt/backups/acme", "s3:///acme", "file://mnt/acme", "s3://b/acme?reigon=x"]
)
def test_a_wrong_url_is_a_usage_error(url: str) -> None:
    """With the right form in the message."""
    done = run("list", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert url in done.stderr


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Mounted somewhere else, most likely."""
    done = run("list", f"file://{tmp_path}/nowhere/acme")
    assert done.returncode == 1
    assert f"there is no folder {tmp_path}/nowhere" in done.stderr


def test_a_missing_backup(owner: Owner) -> None:
    """What there is can be listed."""
    done = run("verify", owner.url, f"{owner.slug}_1999-01-01_00-00-00", "--trust", owner.trust)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "BackupNotFound")


def test_nobody_is_trusted_by_default(owner: Owner) -> None:
    """The key is never taken from the store in silence."""
    done = run("verify", owner.url, "latest", "--identity", owner.key)
    assert (done.returncode, done.stdout) == (2, "")
    assert "recovery sheet" in done.stderr
    assert "--trust-store" in done.stderr


def test_a_lost_sheet_does_not_lose_the_backup(owner: Owner) -> None:
    """With the identity, the key in the store will do, and the command says what that is worth."""
    done = run("verify", owner.url, "latest", "--trust-store", "--identity", owner.key)
    assert done.returncode == 0
    assert f"{owner.trust} was taken from the store itself" in done.stderr


def test_a_wrong_trust_key_is_a_wrong_signature(owner: Owner) -> None:
    """In a list it is marked; everything else refuses."""
    other = ["--trust", f"ed25519:{'1' * 64}"]
    listed = run("list", owner.url, *other)
    assert (listed.returncode, listed.stdout.split()[-1]) == (1, "WRONG")
    backup = f"{owner.slug}_2026-01-01_00-00-00"
    verified = run("verify", owner.url, backup, *other)
    assert (verified.returncode, verified.stderr.split(":")[0]) == (1, "SignatureInvalid")


def test_a_wrong_identity_names_whose_is_needed(owner: Owner, tmp_path: Path) -> None:
    """Both sides of the mismatch are said, nothing secret."""
    other = pyrage.x25519.Identity.generate()
    key = tmp_path / "other.txt"
    key.write_text(str(other))
    done = run("export", owner.url, "latest", "--trust", owner.trust, "--identity", key, cwd=tmp_path)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "WrongKey")
    assert str(owner.identity.to_public()) in done.stderr
    assert str(other) not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_a_file_without_an_identity_is_not_printed(owner: Owner, tmp_path: Path) -> None:
    """It may be any file."""
    key = tmp_path / "notes.txt"
    key.write_text("something private")
    done = run("verify", owner.url, "latest", "--trust", owner.trust, "--identity", key)
    assert done.returncode == 1
    assert "holds no age identity" in done.stderr
    assert "private" not in done.stderr


def test_an_encrypted_backup_without_an_identity(owner: Owner, tmp_path: Path) -> None:
    """Whose key is needed is said, and nothing is written."""
    done = run("export", owner.url, "latest", "--trust", owner.trust, cwd=tmp_path)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "KeyMissing")
    assert str(owner.identity.to_public()) in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_json_for_machines(owner: Owner) -> None:
    """On standard error; standard output has data or nothing."""
    done = run("verify", owner.url, "nothing", "--trust", owner.trust, "--json")
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"]["reason"] == "BackupNotFound"


def damage(owner: Owner) -> str:
    """Change one byte in the middle of the largest pack; return its name."""
    pack = max((owner.prefix / "packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    return str(pack.relative_to(owner.prefix))


def test_damage_is_named_with_the_tables_and_backups_it_hits(own_owner: Owner) -> None:
    """The second backup refers to the same pack."""
    own_owner.back_up(1)
    name = damage(own_owner)
    first = f"{own_owner.slug}_2026-01-01_00-00-00"
    done = run("verify", own_owner.url, first, *own_owner.reading, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["health"]) == (1, "Corrupt")
    assert [each["name"] for each in found["damagedObjects"]] == [name]
    assert found["hitTables"]
    needing = _needing(own_owner, name.rpartition("/")[2])
    assert [first, *found["hitBackups"]] == needing


def _needing(owner: Owner, pack: str) -> list[str]:
    folder = owner.prefix / "manifests"
    return sorted(path.name for path in folder.iterdir() if pack in path.read_text())


@pytest.mark.parametrize("form", ["sql", "zip", "directory"])
def test_a_damaged_pack_leaves_no_exported_file(own_owner: Owner, tmp_path: Path, form: str) -> None:
    """Neither under the final name nor under another."""
    name = damage(own_owner)
    out = tmp_path / "out"
    out.mkdir()
    done = run("export", own_owner.url, "latest", *own_owner.reading, "--format", form, cwd=out)
    assert (done.returncode, done.stdout) == (1, "")
    assert name in done.stderr
    assert list(out.iterdir()) == []


def test_a_damaged_pack_leaves_no_visible_database(own_owner: Owner) -> None:
    """Nothing half-restored either."""
    damage(own_owner)
    done = run(*into(own_owner, f"{own_owner.database}_broken"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "ChecksumMismatch" in done.stderr
    names = own_owner.server.sql("SELECT datname FROM pg_database")
    assert f"{own_owner.database}_broken" not in names


def test_nothing_is_overwritten(owner: Owner, tmp_path: Path) -> None:
    """Not even a file of the same export."""
    target = tmp_path / "mine.sql"
    target.write_text("mine")
    done = run("export", owner.url, "latest", *owner.reading, "-o", target)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "NameTaken")
    assert target.read_text() == "mine"


def test_a_wrong_password_is_said_before_anything_is_read(owner: Owner, tmp_path: Path) -> None:
    """And not repeated."""
    password = tmp_path / "wrong"
    password.write_text("not-it-at-all")
    arguments = into(owner, "never")
    arguments[arguments.index("--password-file") + 1] = str(password)
    done = run(*arguments)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "AuthenticationFailed")
    assert "not-it-at-all" not in done.stderr
