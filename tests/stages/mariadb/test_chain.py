"""All stages of a backup and of a restore as real processes, MariaDB to volume and back, no cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage

from hack.demo.leaks import plaintext
from hack.lab.chain import Chain, Ended, facts
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import ExitCode, Reason
from tests.engines.mariadb import PASSWORDS, MariaDB
from tests.engines.relay import Relay

Make = Callable[..., str]
TORTURE = (Path(__file__).parents[2] / "engines" / "torture_mariadb.sql").read_text()
LARGE = """CREATE TABLE large (id int PRIMARY KEY, a varchar(64), b text);
           INSERT INTO large SELECT seq, sha2(seq, 256), repeat(md5(seq DIV 100), 4) FROM seq_1_to_200000;"""


class Site:
    """A tenant's database on the server, its keys, and a store on disk."""

    def __init__(self, maria: MariaDB, folder: Path, database: str) -> None:
        self.maria, self.database = maria, database
        self.dump_peak = 0  # bytes, of the last backup
        self.said: list[str] = []  # by its stages
        self.identity = pyrage.x25519.Identity.generate()
        self.chain = Chain(folder)
        self.chain.write_keys()
        self.chain.write_secret("database", {"username": "tenant", "password": PASSWORDS["tenant"]})
        self.chain.write_secret("admin", {"username": "boss", "password": PASSWORDS["boss"]})
        self.chain.write_secret("identity", {"identity": f"{self.identity}\n"})

    @property
    def tenant(self) -> jobs.Tenant:
        """The tenant's identity."""
        return jobs.Tenant("cluster", "lab", self.database, self.database)

    def backup(self, **changes: Any) -> dict[str, Any]:
        """Back up everything; return the facts."""
        job = jobs.Backup(
            uid=str(uuid.uuid4()),
            backup_id=f"{self.database}_2026-01-01_00-00-00",
            name="b1",
            tenant=self.tenant,
            database=self.maria.database(self.database),
            store=jobs.Store("volume", prefix="lab"),
            recipients=[str(self.identity.to_public())],
        )
        ended = self.chain.run(replace(job, **changes))
        self.dump_peak, self.said = ended["dump"].peak_rss, [one.stderr for one in ended.values()]
        return facts(ended, "upload")

    def restore(self, found: dict[str, Any], **changes: Any) -> dict[str, Ended]:
        """Restore the backup with these facts into a new database."""
        job = jobs.Restore(
            uid=str(uuid.uuid4()),
            name="r1",
            strategy="NewDatabase",
            source=self.tenant,
            tenant=self.tenant,
            database=self.maria.database(self.database),
            target_database=f"{self.database}_copy",
            store=jobs.Store("volume", prefix="lab"),
            backup_id=found["backupId"],
            manifest_sha256=found["checksum"].removeprefix("sha256:"),
            signing_key=self.chain.signing_key,
        )
        return self.chain.run(replace(job, **changes))


def test_what_was_backed_up_is_what_comes_back(maria: MariaDB, new_database: Make, tmp_path: Path) -> None:
    """One of everything, through every container: the dumps of both databases are the same text."""
    site = Site(maria, tmp_path, new_database(TORTURE))
    found = site.backup()
    restored = facts(site.restore(found), "load")
    copy = f"{site.database}_copy"
    lines = [line.replace(f"(`{site.database}`.", f"(`{copy}`.") for line in maria.dump(site.database)]
    assert lines == maria.dump(copy)
    assert maria.checksums(site.database) == maria.checksums(copy)
    assert (restored["restored"]["rows"], found["consistency"]) == (found["rows"], "PerTable")


def test_a_second_backup_stores_only_what_changed(maria: MariaDB, new_database: Make, tmp_path: Path) -> None:
    """Nothing changed: under 1 %. A hundredth of the rows, side by side: that, and a chunk at either end.

    Where chunks are cut depends on the tenant's key, which is another one each time.
    """
    site = Site(maria, tmp_path, new_database(LARGE))
    first, second = site.backup(), site.backup()
    maria.sql("UPDATE large SET b = upper(a) WHERE id BETWEEN 50000 AND 51999", site.database)
    third = site.backup()
    sizes = [found["bytes"] for found in (first, second, third)]
    assert sizes[0]["logical"] > 35_000_000
    assert sizes[1]["added"] < sizes[0]["stored"] / 100
    assert sizes[2]["added"] < sizes[0]["stored"] * 5 / 100
    facts(site.restore(third), "load")
    assert maria.checksums(site.database) == maria.checksums(f"{site.database}_copy")
    assert third["consistency"] == "Snapshot"


def test_what_is_excluded_is_in_no_byte_that_leaves_the_server(
    maria: MariaDB, new_database: Make, tmp_path: Path
) -> None:
    """Not between server and `dump`, not in packs, lists and manifest, not in statistics, and nobody says it."""
    name = new_database(
        """CREATE TABLE users (id int PRIMARY KEY, name text, password text, KEY (password(20)));
        INSERT INTO users SELECT seq, concat('n', seq), concat('SECRET', seq) FROM seq_1_to_1000;
        CREATE TABLE sessions SELECT 'SECRET' AS token; ANALYZE TABLE users PERSISTENT FOR ALL;"""
    )
    wish: dict[str, Any] = {
        "exclude_columns": [jobs.Column(f"{name}.users", "password")],
        "exclude_tables": [f"{name}.sessions"],
    }
    site = Site(maria, tmp_path, name)
    with Relay(maria.port) as relay:
        database = replace(maria.database(name), port=relay.port, tls_mode="Disable")
        looked = site.chain.run(jobs.Preflight(site.tenant, database, **wish))
        found = site.backup(database=database, **wish)
    stored = plaintext(tmp_path / "store" / "lab" / name, str(site.identity), site.chain.signing_key)
    for place in (relay.heard, stored, repr((facts(looked, "preflight"), found, site.said)).encode()):
        assert b"SECRET" not in place
    assert (b"n1000" in relay.heard, b"n1000" in stored) == (True, True)


def test_peak_memory_is_within_the_promise(maria: MariaDB, new_database: Make, tmp_path: Path) -> None:
    """Of the Python processes: a few batches of rows, however large the table is."""
    site = Site(maria, tmp_path, new_database(LARGE))
    ended = site.restore(site.backup())
    assert ended["load"].code == 0
    assert (site.dump_peak < 64 << 20, ended["load"].peak_rss < 64 << 20) == (True, True)


def test_the_open_stage_dies_and_nothing_stays(maria: MariaDB, new_database: Make, tmp_path: Path) -> None:
    """Without the identity `open` ends; `load` notices, and leaves neither a database nor a login."""
    site = Site(maria, tmp_path, new_database(LARGE))
    found = site.backup()
    (tmp_path / "secrets/identity/identity").unlink()
    ended = site.restore(found)
    result = ended["open"].result
    assert result is not None
    assert (result.reason, ended["load"].code) == (Reason.KEY_MISSING, ExitCode.PEER_FAILED)
    assert (maria.databases(site.database), maria.logins()) == ([site.database], [])
