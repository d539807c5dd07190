"""The pure parts of the PostgreSQL engine: ranges, table of contents, standing, failures, names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import (
    clients,
    exchange,
    failures,
    names,
    properties,
    ranges,
    session,
    toc,
)
from tenant_backup.engines.postgresql.definitions import statements, untolerated
from tenant_backup.engines.postgresql.inventory import Size, Table
from tenant_backup.engines.postgresql.standing import Next, Standing, decide

HEAP = Table(1, "public", "t", "r", "o", True, True, False, "", "", (), ("a",), (), ())
OTHER = Table(1, "public", "t", "r", "o", False, True, False, "", "", (), ("a",), (), ())


def bounds(table: Table, blocks: int, size: int) -> list[tuple[int, int | None]]:
    """The block ranges of a table."""
    return [(part.first, part.last) for part in ranges.cut(table, Size(blocks, size), 8192)]


def test_ranges_have_fixed_boundaries_and_an_open_end() -> None:
    """A table that grows keeps its ranges and gets more at its end."""
    small, large = bounds(HEAP, 40000, 40000 * 8192), bounds(HEAP, 80000, 80000 * 8192)
    assert small == [(0, 16384), (16384, 32768), (32768, None)]
    assert small[:2] == large[:2]
    assert (
        [(0, None)]
        == bounds(HEAP, 16384, 16384 * 8192)
        == bounds(HEAP, 0, 0)
        == bounds(OTHER, 40000, 1 << 30)
    )


def test_values_out_of_line_make_ranges_shorter() -> None:
    """A narrow heap with a huge TOAST table is still read by many."""
    assert len(bounds(HEAP, 10000, 10000 * 8192 * 64)) == 40


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Standing(True, "a", True, False, False, False), Next.BUILD),
        (Standing(True, "a", True, False, True, False), Next.BUILD),
        (Standing(True, "a", True, False, False, True), Next.ANSWER),
        (Standing(True, "a", True, False, True, True), Next.BUILD),
        (Standing(True, "a", False, False, False, False), Next.BUILD),
        (Standing(True, "a", True, True, False, False), Next.ANSWER),
        (Standing(False, "a", True, True, False, False), Next.ANSWER),
        (Standing(False, "a", False, False, True, False), Next.BUILD),
    ],
)
def test_a_run_goes_on_where_a_killed_one_stopped(seen: Standing, expected: Next) -> None:
    """What exists in the server decides."""
    assert decide(seen) is expected


def test_a_strangers_database_is_never_replaced_by_newdatabase() -> None:
    """NameTaken."""
    with pytest.raises(Failure) as caught:
        decide(Standing(False, "a", True, False, False, False))
    assert caught.value.reason is Reason.NAME_TAKEN


def test_what_depends_on_something_left_out_is_left_out_too() -> None:
    """Except for tables with rows: that is a failure."""
    listing = """; comment
2; 3079 16384 EXTENSION - postgis\x20
3; 1259 5 TABLE public a b tenant
;\tdepends on: 2 2
4; 1259 6 VIEW public v tenant
;\tdepends on: 3
5; 1259 7 TABLE public other tenant
6; 0 0 ACL public TABLE a b tenant
;\tdepends on: 3
"""
    entries = toc.parse(listing)
    contents = toc.sift(entries, toc.Limits())
    assert [entry.id for entry in contents.kept] == [5]
    assert contents.skipped == ["EXTENSION - postgis", "TABLE public a b tenant", "VIEW public v tenant"]
    with pytest.raises(Failure) as caught:
        toc.sift(entries, toc.Limits(tables_with_rows=[("public", "a b")]))
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert len(toc.sift(entries, toc.Limits(extensions=["postgis"])).kept) == 5


def test_only_what_stands_on_one_table_alone_can_be_built_before_the_others_are_loaded() -> None:
    """Not what calls a function, not what belongs to another table, nothing when names are ambiguous."""
    listing = """3; 1259 5 TABLE public a tenant
4; 1259 6 TABLE public b tenant
5; 1255 7 FUNCTION public f(integer) tenant
6; 2606 8 CONSTRAINT public a a_pkey tenant
;\tdepends on: 3 3
7; 1259 9 INDEX public a_of_f tenant
;\tdepends on: 3 5
8; 1259 10 INDEX public b_index tenant
;\tdepends on: 4
9; 2606 11 FK CONSTRAINT public a a_b_fkey tenant
;\tdepends on: 3 4 6
10; 2606 12 CHECK CONSTRAINT public a a_check tenant
;\tdepends on: 3
"""
    contents = toc.Contents(toc.parse(listing))
    assert [entry.id for entry in contents.own_indexes("public", "a")] == [6]
    ambiguous = toc.Contents(toc.parse(listing + "11; 1259 13 TABLE public a b tenant\n"))
    assert ambiguous.own_indexes("public", "a") == []


def test_grants_are_taken_one_by_one_from_a_script() -> None:
    """Names may hold semicolons, quotes and line breaks; psql's commands are no statements."""
    script = '\\restrict x\n-- c;\nSET a = 1;\nGRANT SELECT ON "a;\nb""" TO x;\nREVOKE ALL ON t FROM y;\n\\unrestrict x\n'
    assert list(statements(script)) == ['GRANT SELECT ON "a;\nb""" TO x;\n', "REVOKE ALL ON t FROM y;\n"]


@pytest.mark.parametrize(
    ("text", "reason", "retriable"),
    [
        ('FATAL:  password authentication failed for user "x"', Reason.AUTHENTICATION_FAILED, False),
        ('FATAL:  database "x" does not exist', Reason.DATABASE_NOT_FOUND, False),
        ("FATAL:  sorry, too many clients already", Reason.DATABASE_UNREACHABLE, True),
        ("psql:<stdin>:3: ERROR:  42501: permission denied for table t", Reason.PERMISSION_DENIED, False),
        ("psql:<stdin>:3: FATAL:  57P01: terminating connection", Reason.DATABASE_UNREACHABLE, True),
        ("server closed the connection unexpectedly", Reason.DATABASE_UNREACHABLE, True),
        ("ERROR:  22012: division by zero", Reason.DUMP_FAILED, False),
    ],
)
def test_what_a_program_says_becomes_a_reason(text: str, reason: Reason, *, retriable: bool) -> None:
    """By SQLSTATE where there is one, else by the server's words."""
    failure = failures.of_text(text, Reason.DUMP_FAILED, "dumping")
    assert (failure.reason, failure.retriable) == (reason, retriable)
    assert text.rpartition("  ")[2].split(": ")[-1] in failure.message


@pytest.mark.parametrize(
    ("server", "expected"), [(150008, "15"), (160004, "17"), (170010, "17"), (180000, "18"), (190000, None)]
)
def test_the_oldest_client_that_knows_the_server_is_taken(
    tmp_path: Path, server: int, expected: str | None
) -> None:
    """A server newer than every client is refused with what to do."""
    for version in ("15", "17", "18"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "pg_dump").touch()
    if expected:
        assert clients.program("pg_dump", server, tmp_path) == f"{tmp_path}/{expected}/bin/pg_dump"
        return
    with pytest.raises(Failure) as caught:
        clients.program("pg_dump", server, tmp_path)
    assert caught.value.reason is Reason.CLIENT_TOO_OLD
    for words in ("PostgreSQL 19", "15, 17, 18", "newer runner image"):
        assert words in caught.value.message


def test_of_what_pg_restore_says_one_error_means_nothing() -> None:
    """A setting that an old server does not know, in whatever language it says so."""
    nothing = "pg_restore: error: could not execute query: FEHLER:  x »transaction_timeout«\nCommand was: SET transaction_timeout = 0;\n"
    warning = "pg_restore: warning: errors ignored on restore: 1\n"
    real = "pg_restore: error: could not execute query: ERROR:  y\nCommand was: CREATE TABLE transaction_timeout ();\n"
    assert untolerated(nothing + nothing + warning) == ""
    assert untolerated(nothing + real + warning) == real


def test_names_in_the_server_fit_and_tell_restores_apart() -> None:
    """63 bytes, never cutting a character, different for different restores and roles."""
    long = "ü" * 40
    found = [name(long, uid) for name in (names.side_database, names.previous_database) for uid in ("a", "b")]
    assert len(set(found)) == 4
    assert all(len(name.encode()) <= 63 for name in found)


def test_our_note_in_a_comment_is_not_part_of_it() -> None:
    """What a person wrote comes back exactly."""
    for comment in (None, "text", "two\nlines"):
        marked = properties.with_mark(comment, "restored 0123abcd")
        assert (comment, "restored 0123abcd") == (properties.without_mark(marked), properties.mark_of(marked))


def test_options_escape_what_libpq_splits_at() -> None:
    """Blanks and backslashes in values."""
    assert session.as_options({"a": "b c", "d": "\\"}) == "-c a=b\\ c -c d=\\\\"


def test_a_list_setting_keeps_its_elements() -> None:
    """search_path holds names with quotes of their own; a plain setting is one text."""
    assert exchange._value("search_path", '"$user", public, "a "", b"') == "'$user', 'public', 'a \", b'"
    assert exchange._value("search_path", '""') == "''"
    assert exchange._value("DateStyle", "ISO, DMY") == "'ISO, DMY'"
