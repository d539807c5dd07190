"""`export`: files that need nothing of ours."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hack.lab.host_postgres import HostPostgres
from tenant_backup.contract import job as jobs
from tests.cli.conftest import COMMAND, Owner, into, make_owner, run

STAMP = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"


def load(owner: Owner, script: Path, database: str) -> str:
    """Load a script with plain psql, as the tenant's own role, into a new database; return its warnings."""
    owner.server.sql(f"CREATE DATABASE {database} OWNER {owner.database}")
    command = [owner.server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script]
    environment = owner.server.environment(database, owner.database)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_plain_psql_makes_the_same_database_of_the_exported_sql(owner: Owner, tmp_path: Path) -> None:
    """pg_dump of both databases is the same text."""
    done = run("export", owner.url, "latest", *owner.reading, "-o", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    script = Path(done.stdout.strip())
    assert [script] == list(tmp_path.iterdir())
    assert load(owner, script, f"{owner.database}_sql") == ""
    assert owner.dump(f"{owner.database}_sql") == owner.dump(owner.database)


def test_excluded_columns_and_tables_come_back_as_the_policy_says(own_owner: Owner, tmp_path: Path) -> None:
    """No live database to ask: text for rows without a match, NULL, and no rows of a left-out table."""
    columns = [
        jobs.Column("public.app_user", "password_hash", "KeepLive", "!"),
        jobs.Column("public.app_user", "api_token", "Null"),
        jobs.Column("public.employee", "hired_at", "KeepLive", "2000-01-01"),
    ]
    own_owner.back_up(1, exclude_columns=columns, exclude_tables=["public.activity_log"])
    done = run("export", own_owner.url, "latest", *own_owner.reading, "-o", tmp_path / "e.sql")
    assert done.returncode == 0, done.stderr
    copy = f"{own_owner.database}_sql"
    load(own_owner, tmp_path / "e.sql", copy)
    sql = own_owner.server.sql
    assert sql("SELECT DISTINCT password_hash, count(api_token) FROM app_user GROUP BY 1", copy) == "!|0"
    assert sql("SELECT count(*) FROM activity_log", copy) == "0"
    assert sql("SELECT DISTINCT hired_at::date FROM employee", copy) == "2000-01-01"
    assert own_owner.dump_schema(copy) == own_owner.dump_schema(own_owner.database)


def test_large_objects_and_strange_names_survive(server: HostPostgres, tmp_path: Path) -> None:
    """What the torture database of the engine holds, through the same door."""
    owner = make_owner(server, tmp_path)
    nasty = '"tricky\n\\! echo pwned"'
    server.sql(
        f'SET ROLE {owner.database}; SELECT lo_from_bytea(4711, \'\\xdeadbeef\'); CREATE TABLE {nasty} ("a b" int, "c\\d" text);'
        f"INSERT INTO {nasty} VALUES (1, E'x\\ty\\n\\\\.'), (NULL, NULL)",
        owner.database,
    )
    owner.back_up()
    done = run("export", owner.url, "latest", *owner.reading, "-o", tmp_path / "e.sql")
    assert done.returncode == 0, done.stderr
    load(owner, tmp_path / "e.sql", f"{owner.database}_sql")
    assert owner.dump(f"{owner.database}_sql") == owner.dump(owner.database)


def test_a_partial_backup_loads_with_its_foreign_keys_declared_and_not_valid(
    own_owner: Owner, tmp_path: Path
) -> None:
    """The rows they point to are not in it."""
    own_owner.back_up(1, modules=[jobs.Module("work", ["public.task"])], only_modules=["work"])
    done = run("export", own_owner.url, "latest", *own_owner.reading, "-o", tmp_path / "e.sql")
    assert done.returncode == 0, done.stderr
    copy = f"{own_owner.database}_sql"
    load(own_owner, tmp_path / "e.sql", copy)
    sql = own_owner.server.sql
    assert sql("SELECT count(*) FROM employee", copy) == "0"
    assert sql("SELECT count(*) FROM task", copy) == sql("SELECT count(*) FROM task", own_owner.database)
    loose = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'task'::regclass AND contype = 'f' AND NOT convalidated"
    assert sql(loose, copy) == "2"


def test_what_is_not_encrypted_needs_no_identity(own_owner: Owner, tmp_path: Path) -> None:
    """Only whose signature to believe."""
    own_owner.back_up(1, encryption="None", recipients=[])
    done = run("export", own_owner.url, "latest", "--trust", own_owner.trust, "-o", tmp_path / "e.sql")
    assert done.returncode == 0, done.stderr
    copy = f"{own_owner.database}_copy"
    arguments = into(own_owner, copy)
    at = arguments.index("--identity")
    restored = run(*arguments[:at], *arguments[at + 2 :])
    assert restored.returncode == 0, restored.stderr
    assert own_owner.dump(copy) == own_owner.dump(own_owner.database)


@pytest.mark.parametrize("form", ["zip", "directory"])
def test_a_parcel_proves_itself_and_loads(owner: Owner, tmp_path: Path, form: str) -> None:
    """`sha256sum -c` accepts it, metadata tells what is in it, its SQL is the database."""
    done = run("export", owner.url, "latest", *owner.reading, "--format", form, "-o", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (made,) = tmp_path.iterdir()
    assert re.fullmatch(rf"{owner.slug}_{STAMP}(\.zip)?", made.name)
    folder = made
    if form == "zip":
        folder = tmp_path / "unpacked"
        subprocess.run([sys.executable, "-m", "zipfile", "-e", made, folder], check=True)
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        f"{made.stem}.sql",
        "metadata.json",
    ]
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["tenant"]["slug"] == owner.slug
    copy = f"{owner.database}_{form}"
    load(owner, folder / f"{made.stem}.sql", copy)
    assert owner.dump(copy) == owner.dump(owner.database)


def test_the_file_is_named_after_the_moment_its_rows_are_from(owner: Owner, tmp_path: Path) -> None:
    """In UTC, whatever the time zone of the machine."""
    snapshot = json.loads(run("inspect", owner.url, "latest", "--json").stdout)["times"]["snapshot"]
    done = run("export", owner.url, "latest", *owner.reading, cwd=tmp_path, TZ="Asia/Tokyo")
    stamp = snapshot.removesuffix("Z").replace("T", "_").replace(":", "-")
    assert done.stdout.strip() == f"{owner.slug}_{stamp}.sql"


def test_an_interrupted_export_leaves_nothing(owner: Owner, tmp_path: Path) -> None:
    """Ctrl-C while it writes: no file under any name, no temporary folder."""
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [*COMMAND, "export", owner.url, "latest", *owner.reading, "-o", str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not list(out.iterdir()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "\ninterrupted; nothing was left behind\n")
    assert (list(out.iterdir()), list(temporary.iterdir())) == ([], [])
