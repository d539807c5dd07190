"""`list`, `inspect` and `verify`: what somebody sees who has only the store."""

from __future__ import annotations

import json

from tests.cli.conftest import Owner, run


def test_list_without_a_slug_shows_the_tenants(owner: Owner) -> None:
    """The way in, when not even the slug is known."""
    done = run("list", f"file://{owner.prefix.parent}", "--json")
    newest = f"{owner.slug}_2026-01-01_00-00-00"
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"tenants": [{"slug": owner.slug, "backups": 1, "newest": newest}]},
    )


def test_list_shows_size_and_signature(owner: Owner) -> None:
    """Without a key: name, time, sizes, rows; with the sheet's key also whether the signature is good."""
    done = run("list", owner.url, "--trust", owner.trust)
    assert (done.returncode, done.stderr) == (0, "")
    heads, row = done.stdout.splitlines()
    assert heads.split() == ["BACKUP", "COMPLETED", "SIZE", "ADDED", "TABLES", "ROWS", "FILES", "SIGNATURE"]
    assert row.startswith(f"{owner.slug}_2026-01-01_00-00-00")
    assert row.endswith("good")


def test_list_does_not_call_a_signature_good_that_nobody_checked(owner: Owner) -> None:
    """No key, no verdict."""
    document = json.loads(run("list", owner.url, "--json").stdout)
    assert [backup["signature"] for backup in document["backups"]] == ["unchecked"]


def test_inspect_tells_the_tables_to_whom_the_rows_belong(owner: Owner) -> None:
    """With the identity, every table with its rows."""
    done = run("inspect", owner.url, "latest", *owner.reading, "--json")
    tables = {table["name"]: table["rows"] for table in json.loads(done.stdout)["tableList"]}
    counted = owner.server.sql("SELECT count(*) FROM employee", owner.database)
    assert tables["public.employee"] == int(counted)
    words = run("inspect", owner.url, "latest").stdout
    assert "employee" not in words
    assert "unchecked" in words


def test_verify_reads_every_object_without_a_key_and_every_row_with_it(owner: Owner) -> None:
    """Two depths of the same question."""
    checked = json.loads(run("verify", owner.url, "latest", "--trust", owner.trust, "--json").stdout)
    opened = json.loads(run("verify", owner.url, "latest", *owner.reading, "--json").stdout)
    assert (checked["health"], checked["level"], checked["rows"]) == ("Healthy", "Checksum", None)
    assert (opened["health"], opened["level"]) == ("Healthy", "Contents")
    assert opened["rows"] > 0
