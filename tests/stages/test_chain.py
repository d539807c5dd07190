"""All stages of a backup and of a restore as real processes, PostgreSQL to volume and back, no cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.demo.leaks import plaintext
from hack.lab.chain import Chain, facts
from hack.lab.host_postgres import PASSWORD, HostPostgres, host_postgres
from hack.lab.servers import HR_SQL
from tenant_backup.cli.pipeline import Running
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tests.engines.relay import Relay
from tests.engines.trees import described, grow, volume


@pytest.fixture(scope="module")
def server() -> Iterator[HostPostgres]:
    """One PostgreSQL for all tests of this file."""
    with host_postgres() as running:
        yield running


@dataclass
class Site:
    """A tenant's database on the server, its keys, and a store on disk."""

    server: HostPostgres
    chain: Chain
    database: str
    identity: pyrage.x25519.Identity

    @property
    def tenant(self) -> jobs.Tenant:
        """The tenant's identity."""
        return jobs.Tenant("cluster", "lab", self.database, self.database.replace("_", "-"))

    def database_job(self) -> jobs.Database:
        """Where the rows are."""
        return jobs.Database("PostgreSQL", "127.0.0.1", self.server.port, self.database, tls_mode="Disable")

    def backup(self, **changes: Any) -> jobs.Backup:
        """A backup of everything; keyword arguments replace fields."""
        job = jobs.Backup(
            uid=str(uuid.uuid4()),
            backup_id=f"{self.tenant.slug}_2026-01-01_00-00-00",
            name="b1",
            tenant=self.tenant,
            database=self.database_job(),
            store=jobs.Store("volume", prefix="lab"),
            recipients=[str(self.identity.to_public())],
        )
        return replace(job, **changes)

    def restore(self, backup: dict[str, Any], **changes: Any) -> jobs.Restore:
        """A Replace from the backup with these facts; keyword arguments replace fields."""
        job = jobs.Restore(
            uid=str(uuid.uuid4()),
            name="r1",
            strategy="Replace",
            source=self.tenant,
            tenant=self.tenant,
            database=self.database_job(),
            target_database=self.database,
            store=jobs.Store("volume", prefix="lab"),
            backup_id=backup["backupId"],
            manifest_sha256=backup["checksum"].removeprefix("sha256:"),
            signing_key=self.chain.signing_key,
        )
        return replace(job, **changes)

    def manifests(self) -> list[Path]:
        """The manifests in the store."""
        return sorted((self.chain.folder / "store").glob("lab/*/manifests/*"))


@pytest.fixture
def site(server: HostPostgres, tmp_path: Path) -> Site:
    """A tenant with an HR product's database."""
    name = f"hr_{uuid.uuid4().hex[:8]}"
    server.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    server.sql(f"CREATE DATABASE {name} OWNER {name}")
    server.sql(f"\\set tenant {name}\n\\set scale 1\nSET ROLE {name};\n{HR_SQL.read_text()}", name)
    identity = pyrage.x25519.Identity.generate()
    chain = Chain(tmp_path)
    chain.write_keys()
    chain.write_secret("database", {"username": name, "password": PASSWORD})
    chain.write_secret("admin", {"username": "postgres", "password": PASSWORD})
    chain.write_secret("identity", {"identity": f"{identity}\n"})
    return Site(server, chain, name, identity)


def _dump(server: HostPostgres, database: str) -> list[str]:
    """pg_dump's own text, without its random restrict key."""
    text = subprocess.run(
        [server.bin / "pg_dump"], env=server.environment(database), check=True, capture_output=True, text=True
    ).stdout
    return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def test_what_was_backed_up_is_what_comes_back(site: Site) -> None:
    """The dumps of both databases are the same text."""
    backup = facts(site.chain.run(site.backup()), "upload")
    copy = f"{site.database}_copy"
    restored = facts(
        site.chain.run(site.restore(backup, strategy="NewDatabase", target_database=copy)), "load"
    )
    assert _dump(site.server, copy) == _dump(site.server, site.database)
    assert restored["restored"]["rows"] == backup["rows"]


def test_database_and_files_are_one_backup_and_come_back_together(site: Site) -> None:
    """One manifest with the times of both; asked for alone, each comes back without the other."""
    uploads, copy = site.chain.folder / "files" / "uploads", f"{site.database}_copy"
    uploads.mkdir(parents=True)
    grow(uploads, 8)
    backup = facts(site.chain.run(site.backup(files=[volume("uploads")])), "upload")
    manifest = json.loads(site.manifests()[0].read_bytes())
    assert manifest["times"]["started"] <= manifest["files"]["readFrom"] <= manifest["times"]["completed"]
    read = {"filesFrom": manifest["files"]["readFrom"], "filesTo": manifest["files"]["readTo"]}
    assert backup["dataAt"] == {"database": manifest["times"]["snapshot"], **read}
    assert (backup["consistency"], backup["rows"] > 0, backup["files"]["count"] > 0) == (
        "Snapshot",
        True,
        True,
    )
    before = uploads.rename(site.chain.folder / "before")
    uploads.mkdir()
    wish: dict[str, Any] = {"strategy": "NewDatabase", "target_database": copy}
    ended = site.chain.run(site.restore(backup, files=[volume("uploads")], **wish))
    assert facts(ended, "load")["restored"]["rows"] == backup["rows"]
    assert facts(ended, "place uploads")["files"] == backup["files"]["count"]
    assert _dump(site.server, copy) == _dump(site.server, site.database)
    assert described(uploads) == described(before)
    alone = facts(
        site.chain.run(site.restore(backup, strategy="NewDatabase", target_database=f"{copy}2")), "load"
    )
    assert alone["restored"]["rows"] == backup["rows"]


def test_database_and_files_are_replaced_together_and_come_back_together(site: Site) -> None:
    """In place of what both have become; the undo brings that back."""
    uploads = site.chain.folder / "files" / "uploads"
    uploads.mkdir(parents=True)
    grow(uploads, 8)
    backup = facts(site.chain.run(site.backup(files=[volume("uploads")])), "upload")
    good = (described(uploads), _dump(site.server, site.database))
    (uploads / "since").write_bytes(b"since")
    site.server.sql("DROP TABLE attendance CASCADE", site.database)
    bad = (described(uploads), _dump(site.server, site.database))
    job = site.restore(backup, files=[volume("uploads")])
    for _ in range(2):  # the second one finds all of it in place
        assert facts(site.chain.run(job), "load")["previousDatabase"]
        assert (described(uploads), _dump(site.server, site.database)) == good
    after = jobs.Swap(job.uid, "r1", "Undo", job.database, site.database, [volume("uploads")])
    facts(site.chain.run(after), "switch uploads")
    assert (described(uploads), _dump(site.server, site.database)) == bad


def test_the_same_attempt_again_answers_with_the_committed_backup(site: Site) -> None:
    """A pod that vanished before it was read costs nothing."""
    job = site.backup()
    first = facts(site.chain.run(job), "upload")
    again = facts(site.chain.run(job), "upload")
    assert {key: again[key] for key in ("backupId", "checksum", "rows")} == {
        key: first[key] for key in ("backupId", "checksum", "rows")
    }
    assert len(site.manifests()) == 1


def test_another_backup_in_the_same_second_gets_a_name_of_its_own(site: Site) -> None:
    """Decided before anything is dumped."""
    first = facts(site.chain.run(site.backup()), "upload")
    second = facts(site.chain.run(site.backup()), "upload")
    assert (first["backupId"] + "-2", 2) == (second["backupId"], len(site.manifests()))


def test_excluded_columns_come_back_from_the_live_database(site: Site) -> None:
    """KeepLive by primary key; rows without a match get the value asked for."""
    columns = [
        jobs.Column("public.app_user", "password_hash", "KeepLive", "!"),
        jobs.Column("public.app_user", "api_token", "Null"),
    ]
    backup = facts(site.chain.run(site.backup(exclude_columns=columns)), "upload")
    site.server.sql(
        "UPDATE app_user SET password_hash = 'new' WHERE id = 2; DELETE FROM app_user WHERE id = 4",
        site.database,
    )
    facts(site.chain.run(site.restore(backup, exclude_columns=columns)), "load")
    rows = site.server.sql(
        "SELECT id, password_hash FROM app_user WHERE id IN (2, 4) ORDER BY id", site.database
    )
    assert rows == "2|new\n4|!"
    assert site.server.sql("SELECT count(api_token) FROM app_user", site.database) == "0"


def test_what_is_excluded_is_in_no_byte_that_leaves_the_server(site: Site) -> None:
    """Not between server and `dump`, not in packs, lists and manifest, not in statistics, and nobody says it."""
    columns = [
        jobs.Column("public.app_user", "password_hash", "KeepLive", "!"),
        jobs.Column("public.app_user", "api_token", "Null"),
    ]
    wish: dict[str, Any] = {"exclude_columns": columns, "exclude_tables": ["public.contact"]}
    site.server.sql("ANALYZE", site.database)
    with Relay(site.server.port) as relay:
        database = replace(site.database_job(), port=relay.port)
        looked = site.chain.run(jobs.Preflight(site.tenant, database, **wish))
        ended = site.chain.run(site.backup(database=database, **wish))
    facts(looked, "preflight"), facts(ended, "upload")
    folder = site.chain.folder / "store" / "lab" / site.tenant.slug
    stored = plaintext(folder, str(site.identity), site.chain.signing_key)
    token = site.server.sql("SELECT encode(api_token, 'hex') FROM app_user WHERE id = 2", site.database)
    for place in (relay.heard, stored, repr((looked, ended)).encode()):
        assert [secret in place for secret in (b"argon2id", token.encode(), b"+39 17")] == [False] * 3
    assert (b"17@example.org" in relay.heard, b"17@example.org" in stored) == (True, True)


@pytest.mark.parametrize("stage", ["dump", "archive", "upload"])
def test_peak_memory_is_within_the_promise(site: Site, stage: str) -> None:
    """64 MiB for dump, 256 MiB for archive and upload, of the Python process itself."""
    limits = {"dump": 64, "archive": 256, "upload": 256}
    ended = site.chain.run(site.backup())
    assert ended[stage].code == 0
    assert ended[stage].peak_rss < limits[stage] << 20


def test_a_missing_key_secret_is_named_and_every_stage_ends(site: Site) -> None:
    """Peers notice; nobody waits for ever."""
    (site.chain.folder / "secrets" / "keys" / "indexKey").unlink()
    ended = site.chain.run(site.backup(), seconds=60)
    result = ended["archive"].result
    assert result is not None
    assert (result.reason, ended["archive"].code) == (Reason.KEY_MISSING, ExitCode.PERMANENT)
    assert {ended["dump"].code, ended["upload"].code} == {ExitCode.PEER_FAILED}
    assert site.manifests() == []


def _restored_like_the_original(site: Site, backup: dict[str, Any]) -> bool:
    """Whether a restore into a new database dumps to the same text."""
    copy = f"{site.database}_copy"
    facts(site.chain.run(site.restore(backup, strategy="NewDatabase", target_database=copy)), "load")
    return _dump(site.server, copy) == _dump(site.server, site.database)


@pytest.fixture
def large(site: Site) -> Site:
    """The same with a table of 100 MB, which zstd makes about 60 MB of."""
    site.server.sql(
        f"SET ROLE {site.database}; CREATE TABLE large (id int PRIMARY KEY, a text, b text);"
        " INSERT INTO large SELECT n, encode(sha512(n::text::bytea), 'hex'), repeat(md5((n / 100)::text), 2)"
        " FROM generate_series(1, 500000) n",
        site.database,
    )
    return site


def test_a_second_backup_stores_only_what_changed_and_restores_identically(large: Site) -> None:
    """Nothing changed: under 1 %. A hundredth of the rows, side by side: under 3 %. Full: everything."""
    first = facts(large.chain.run(large.backup()), "upload")
    second = facts(large.chain.run(large.backup()), "upload")
    large.server.sql("UPDATE large SET b = upper(a) WHERE id BETWEEN 250000 AND 254999", large.database)
    third = facts(large.chain.run(large.backup()), "upload")
    full = facts(large.chain.run(large.backup(mode="Full")), "upload")
    sizes = [backup["bytes"] for backup in (first, second, third, full)]
    print(sizes)
    assert sizes[0]["logical"] > 100_000_000
    assert sizes[1]["added"] < sizes[0]["stored"] * 1 / 100
    assert sizes[2]["added"] < sizes[0]["stored"] * 3 / 100
    assert sizes[3]["added"] == sizes[3]["stored"]
    assert _restored_like_the_original(large, third)


def test_a_reference_that_vanishes_during_the_run_is_healed_by_the_next_attempt(site: Site) -> None:
    """`upload` refuses the commit, retriable; the attempt after it stores the chunks anew."""
    facts(site.chain.run(site.backup()), "upload")
    (packs,) = (site.chain.folder / "store").glob("lab/*/packs")

    def lose(running: Sequence[Running]) -> None:
        if running[0].stage != "prepare":
            shutil.rmtree(packs, ignore_errors=True)

    job = site.backup()
    ended = site.chain.run(job, meanwhile=lose)
    refused = ended["upload"].result
    assert refused is not None
    assert (ended["upload"].code, refused.reason) == (ExitCode.RETRIABLE, Reason.PACK_MISSING)
    assert len(site.manifests()) == 1
    again = facts(site.chain.run(job), "upload")
    assert _restored_like_the_original(site, again)
