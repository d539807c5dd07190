"""The pure parts of the MariaDB engine: rows as lines, rights, versions, names, definitions."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence

import pytest
from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.mysql import (
    definitions,
    failures,
    grants,
    inserts,
    inventory,
    names,
    ranges,
    rows,
    script,
    versions,
)
from tenant_backup.engines.mysql.definitions import Definition
from tenant_backup.engines.mysql.dialects import MARIADB, MYSQL, Dialect
from tenant_backup.engines.mysql.grants import Need
from tenant_backup.engines.mysql.inventory import Column, KeyPart, Size, Table
from tenant_backup.engines.mysql.journal import Journal
from tenant_backup.engines.mysql.moving import Holdings
from tenant_backup.engines.selection import Choice


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(b"1", b"a"), (b"2", b"")], b"1\ta\n2\t\n"),
        ([(b"1", None), (None, b"b")], b"1\t\\N\n\\N\tb\n"),
        ([(b"a\tb", b"c\nd"), (b"e\\f", b"g")], b"a\\tb\tc\\nd\ne\\\\f\tg\n"),
        ([(b"\\N", None)], b"\\\\N\t\\N\n"),
        ([(b"",), (None,), (b"\n",)], b"\n\\N\n\\n\n"),
        ([(b"\x00\xff\r",)], b"\x00\xff\r\n"),
        ([(b"\x1f\t", b"x"), (b"\x1e", None), (b"\x1d\\", b"\n")], b"\x1f\\t\tx\n\x1e\t\\N\n\x1d\\\\\t\\n\n"),
        ([(b"\x1f", b"x")], b"\x1f\tx\n"),
    ],
)
def test_rows_become_lines_that_say_what_they_said(
    values: list[tuple[bytes | None, ...]], expected: bytes
) -> None:
    """One newline for each row, whatever is in it."""
    assert expected == rows.lines(values)
    assert expected.count(b"\n") == len(values)


VALUES: list[tuple[bytes | None, ...]] = [
    (b"it's", None),
    (b"\\N", b"'\\N'"),
    (b"a\tb", b"c\nd"),
    (b"\0\r\x1a", b"'\\u\\N','"),
]
TABLE = {"columns": ["a", "b`"], "textColumns": [], "fill": {}}


@pytest.mark.parametrize("pieces", [1, 2, 3, 1000])
@pytest.mark.parametrize("most", [1, 1000])
def test_lines_become_inserts_wherever_the_blocks_are_cut(
    pieces: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NULL is not the text N, and a quote in a value does not end it; no statement is longer than it has to be."""
    monkeypatch.setattr(inserts, "_STATEMENT_BYTES", most)
    data = rows.lines(VALUES)
    blocks = [data[at : at + pieces] for at in range(0, len(data), pieces)]
    found = list(inserts.statements(TABLE, "`t`", map(memoryview, blocks)))
    head = b"INSERT INTO `t` (`a`, `b```) VALUES\n"
    assert {statement[: len(head)] for statement in found} == {head}
    assert b",\n".join(statement.removeprefix(head) for statement in found).split(b",\n") == [
        rb"('it\'s',NULL)",
        rb"('\\N','\'\\N\'')",
        rb"('a\tb','c\nd')",
        rb"('\0\r\Z','\'\\u\\N\',\'')",
    ]
    assert len(found) == (1 if most == 1000 or pieces == 1000 else 4)


def test_a_row_longer_than_a_statement_stays_whole() -> None:
    """In a statement of its own, however many blocks it comes in."""
    long = rows.lines([(b"x" * 3_000_000, b"y")])
    blocks = [
        b"1\t2\n" + long[:1_000_000],
        long[1_000_000:2_900_000],
        long[2_900_000:] + b"3\t4\n",
        b"5\t6\n",
    ]
    found = list(inserts.statements(TABLE, "`t`", blocks))
    assert [statement.count(b"(") - 1 for statement in found] == [3, 1]


def test_text_is_called_text_and_columns_that_were_left_out_are_filled() -> None:
    """A UUID as bytes would be 16 of them; NULL stays NULL."""
    table = {"columns": ["a", "u", "i"], "textColumns": ["u", "i"], "fill": {"p": "it's\t\\N", "q": None}}
    lines = rows.lines([(b"'", b"12-3", b"::1"), (None, None, b"")])
    (statement,) = inserts.statements(table, "`t`", [lines])
    assert statement == (
        b"INSERT INTO `t` (`a`, `u`, `i`, `p`, `q`) VALUES\n"
        b"('\\'',_utf8mb4'12-3',_utf8mb4'::1',_utf8mb4'it\\'s\t\\\\N',NULL),\n"
        b"(NULL,NULL,_utf8mb4'',_utf8mb4'it\\'s\t\\\\N',NULL)"
    )


def test_a_row_of_one_empty_value_is_a_row() -> None:
    """The last one, too."""
    table = {"columns": ["a"], "textColumns": ["a"], "fill": {}}
    assert inserts.tuples(b"\n\n", [], b"") == b"(''),\n('')"
    (statement,) = inserts.statements(table, "t", [b"\n\\N\n"])
    assert statement.endswith(b"\n(_utf8mb4''),\n(NULL)")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE `a;b`` ü\n` (\n  `x` int DEFAULT 'it''s; -- ü',\n  CHECK (`x` - -1 > 2 * 3)\n) ENGINE=InnoDB",
        "CREATE SEQUENCE `s` start with 1 minvalue -5",
    ],
)
def test_what_everybody_reads_alike_stands_in_a_script_as_it_is(sql: str) -> None:
    """So what has tables only is for MySQL, too."""
    item = Definition("TABLE", "t", sql)
    assert script.definition(item, MARIADB).decode() == f"{item.session};\n{sql};\n"


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("TABLE", "CREATE TABLE `a` (`x` int COMMENT 'a\\\\b')"),
        ("TABLE", "CREATE TABLE `a\r\nb` (`x` int)"),
        ("TABLE", "CREATE TABLE `a` (`x` text, FULLTEXT KEY (`x`) /*!50100 WITH PARSER `p` */)"),
        ("VIEW", "CREATE VIEW `v` AS select 1; \\! touch x"),
        ("VIEW", "CREATE VIEW `v` AS select 1 --\x01 \\! touch x"),
        ("VIEW", "CREATE VIEW `v` AS select \"'\", 1 # '"),
        ("VIEW", "CREATE VIEW `v` AS select 'a"),
        ("FUNCTION", "CREATE FUNCTION `f`() RETURNS int RETURN\nsystem\n(1)"),
    ],
)
def test_everything_else_is_one_string_in_a_script(kind: str, sql: str) -> None:
    """Whose end nothing in it can be: no quote, backslash, or end of line as Windows has it stands alone."""
    text = script.definition(
        Definition(kind, "x", sql, settings={"sql_mode": "ANSI_QUOTES"}), MARIADB
    ).decode()
    found = re.fullmatch(
        r"SET NAMES binary;\nSET SESSION sql_mode = '';\nSET @tenant_backup = _binary'((?:[^'\\\r\0]|\\.)*)';\n"
        r"SET SESSION sql_mode = 'ANSI_QUOTES', [^;]*;\nEXECUTE IMMEDIATE @tenant_backup;\n",
        text,
    )
    assert found
    unescaped = {"r": "\r", "0": "\0", "Z": "\x1a"}
    assert re.sub(r"\\(.)", lambda escape: unescaped.get(escape[1], escape[1]), found[1]) == sql


def test_views_follow_those_they_select_from() -> None:
    """Not those that only have the name of a column, of another name, or of a word in a string."""
    views = {
        "a": "select `z`.`b` AS `c`,'`c`' AS `x` from (`z` join `t` `c` on(`c`.`b` = `z`.`b`))",
        "b": "select `a`.`x` AS `a` from `a`",
        "c": "select 1 AS `a` from (select `b`.`a` AS `z` from `b`) `z`",
        "z": "select 1 AS `b`",
    }
    found = [Definition("TRIGGER", "r", "")]
    found += [Definition("VIEW", name, f"CREATE VIEW `{name}` AS {sql}") for name, sql in views.items()]
    assert [item.name for item in script.code_in_order(found)] == ["r", "z", "a", "b", "c"]


def test_names_in_a_ring_of_views_still_come_once() -> None:
    """One of them means something else inside: a common table expression."""
    found = [
        Definition("VIEW", "a", "CREATE VIEW `a` AS with `b` as (select 1) select * from `b`"),
        Definition("VIEW", "b", "CREATE VIEW `b` AS select * from `a`"),
    ]
    assert [item.name for item in script.code_in_order(found)] == ["a", "b"]


def test_a_name_that_a_client_program_would_change_is_refused() -> None:
    """Before anything is written."""
    engine = {"tables": [{"table": "t", "columns": ["a", "b\r\nc"]}], "sequences": []}
    with pytest.raises(Failure) as caught:
        script.refuse_names(engine)
    assert (caught.value.reason, r"'b\r\nc'" in caught.value.message) == (Reason.UNSUPPORTED_CONTENT, True)


@pytest.mark.parametrize(
    ("sql", "definer", "expected"),
    [
        (
            "CREATE ALGORITHM=MERGE SQL SECURITY DEFINER VIEW",
            "a`b@%",
            "CREATE ALGORITHM=MERGE DEFINER=`a``b`@`%` SQL",
        ),
        ("CREATE TRIGGER `r`", "a@b@c", "CREATE DEFINER=`a@b`@`c` TRIGGER"),
        ("CREATE PACKAGE `p`", "role", "CREATE DEFINER=`role` PACKAGE"),
    ],
)
def test_a_definer_comes_back_where_it_was(sql: str, definer: str, expected: str) -> None:
    """For who wants owners to be kept."""
    found = definitions.owned(Definition("X", "x", sql, definer)).sql
    assert found.startswith(f"{expected} ")
    assert definitions._owned("X", "x", found, {}) == Definition("X", "x", sql, definer)


LINES = [
    "GRANT USAGE ON *.* TO `t`@`%` IDENTIFIED BY PASSWORD '*E2'",
    "GRANT SELECT, SHOW VIEW ON `acme\\_1`.* TO `t`@`%`",
    "GRANT EVENT ON `ac%`.* TO `t`@`%` WITH GRANT OPTION",
    "GRANT TRIGGER ON `acmeX1`.* TO `t`@`%`",
    "GRANT EXECUTE ON `acme\\_1`.`t` TO `t`@`%`",
    "GRANT `reader` TO `t`@`%`",
]


def test_rights_are_those_of_the_pattern_that_says_most_and_of_no_other() -> None:
    """The server looks no further than that; rights on a single table are not rights on the database."""
    found = grants.parse(LINES, "'t'@'%'", "acme_1", MARIADB)
    assert (found.here, found.beyond) == (frozenset({"USAGE", "SELECT", "SHOW VIEW"}), [])
    with pytest.raises(Failure) as caught:
        grants.refuse_blind(found, "acme_1")
    assert caught.value.message.endswith("run: GRANT TRIGGER, EVENT, EXECUTE ON `acme\\_1`.* TO 't'@'%'")
    everything = grants.parse(["GRANT ALL PRIVILEGES ON *.* TO `t`@`%`"], "'t'@'%'", "acme_1", MARIADB)
    grants.refuse_blind(everything, "acme_1")
    assert everything.beyond == ["ALL PRIVILEGES"]


def test_a_grant_is_asked_for_where_the_account_has_its_rights_already() -> None:
    """One on the exact name would hide them, and the application would lose its own."""
    lines = ["GRANT SELECT, INSERT ON `acme_1`.* TO `t`@`%`", "GRANT TRIGGER ON `acme\\_1`.* TO `reader`"]
    found = grants.parse(lines, "'t'@'%'", "acme_1", MARIADB)
    with pytest.raises(Failure) as caught:
        grants.refuse_blind(found, "acme_1")
    assert caught.value.message.endswith("run: GRANT SHOW VIEW, EVENT, EXECUTE ON `acme_1`.* TO 't'@'%'")


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        (
            ["GRANT USAGE ON *.* TO `b`@`%`"],
            "GRANT ALL PRIVILEGES ON `acme\\_new\\_%`.* TO 'b'@'%' WITH GRANT OPTION",
        ),
        (
            ["GRANT ALL PRIVILEGES ON *.* TO `b`@`%`"],
            "GRANT ALL PRIVILEGES ON `acme\\_new\\_%`.* TO 'b'@'%' WITH GRANT OPTION",
        ),
        (
            ["GRANT SELECT ON `acme%`.* TO `b`@`%` WITH GRANT OPTION"],
            "GRANT ALL PRIVILEGES ON `acme%`.* TO 'b'@'%' WITH GRANT OPTION",
        ),
        (["GRANT ALL PRIVILEGES ON *.* TO `b`@`%` IDENTIFIED BY PASSWORD '*E2' WITH GRANT OPTION"], ""),
        (["GRANT ALL PRIVILEGES ON `acme\\_new\\_%`.* TO `b`@`%` WITH GRANT OPTION"], ""),
    ],
)
def test_an_administrator_is_asked_for_what_is_missing_and_nothing_else(
    lines: list[str], missing: str
) -> None:
    """One GRANT for the databases of all restores to come."""
    need = Need("acme_new_0123abcd", names.granted_sides("acme"))
    assert missing == need.missing(grants.parse(lines, "'b'@'%'", need.database, MARIADB))


@pytest.mark.parametrize(
    ("said", "dialect", "version"),
    [
        ("10.11.6-MariaDB-0+deb12u1", MARIADB, "10.11.6"),
        ("5.5.5-11.8.2-MariaDB", MARIADB, "11.8.2"),
        ("12.0.1-MariaDB", MARIADB, "12.0.1"),
        ("8.4.3", MYSQL, "8.4.3"),
        ("9.7.0-1debian1", MYSQL, "9.7.0"),
    ],
)
def test_a_server_says_its_version(said: str, dialect: Dialect, version: str) -> None:
    """With what its packager and old replicas add."""
    assert versions.supported(said, dialect) == version


@pytest.mark.parametrize(
    ("said", "dialect"),
    [
        ("8.4.3", MARIADB),
        ("10.6.18-MariaDB", MARIADB),
        ("unknown", MARIADB),
        ("unknown", MYSQL),
        ("8.0.36", MYSQL),
        ("11.8.2-MariaDB", MYSQL),
        ("8.0.11-TiDB-v7.5.1", MYSQL),
    ],
)
def test_a_server_that_is_not_known_is_refused_by_its_own_words(said: str, dialect: Dialect) -> None:
    """Too old, or not what the Tenant says that it is."""
    with pytest.raises(Failure) as caught:
        versions.supported(said, dialect)
    assert (caught.value.reason, said.partition("-")[0] in caught.value.message) == (
        Reason.UNSUPPORTED_CONTENT,
        True,
    )


def test_names_are_quoted_and_patterns_mean_one_database() -> None:
    """Also those that were made to break out."""
    assert names.quoted("a`b", "c") == "`a``b`.`c`"
    assert names.literal("a'b\\\r\n") == "'a\\'b\\\\\\r\n'"
    assert names.granted("a_%\\") == "`a\\_\\%\\\\`"
    assert names.account("o'hara@%") == "'o\\'hara'@'%'"
    assert len(names.side_database("x" * 64, "u")) <= 64
    assert names.granted_previous("a_b") == "`a\\_b\\_old\\_%`"


def test_a_definition_loses_its_definer_and_the_name_of_its_own_database() -> None:
    """Not what a string says, and not a table that is called like the database."""
    sql = "CREATE ALGORITHM=MERGE DEFINER=`a``b`@`%` SQL SECURITY DEFINER VIEW `v` AS select '`d`.`t`' from `d`.`t` join `o`.`d`.`x`"
    found = definitions._relative(definitions._owned("VIEW", "v", sql, {}), "d")
    assert found.definer == "a`b@%"
    assert found.sql == (
        "CREATE ALGORITHM=MERGE SQL SECURITY DEFINER VIEW `v` AS select '`d`.`t`' from `t` join `o`.`d`.`x`"
    )


@pytest.mark.parametrize(
    ("definer", "shown"),
    [("a`b@%", "`a``b`@`%`"), ("role", "`role`"), ("role@", "`role`"), ("@localhost", "``@`localhost`")],
)
def test_code_is_created_again_for_whom_it_had(definer: str, shown: str) -> None:
    """Users, roles and nobody; what has no definer would become the administrator's."""
    view = Definition(
        "VIEW", "v", "CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `v` AS select 1", definer
    )
    assert definitions.owned(view).sql == (
        f"CREATE ALGORITHM=MERGE DEFINER={shown} SQL SECURITY INVOKER VIEW `v` AS select 1"
    )
    with pytest.raises(AssertionError):
        definitions.owned(Definition("VIEW", "v", "CREATE VIEW `v` AS select 1"))


@pytest.mark.parametrize(
    "when", ["EVERY '1:30' HOUR_MINUTE STARTS '2024-01-01 00:00:00'", "AT '2099-01-01 00:00:00'"]
)
@pytest.mark.parametrize("name", ["`e`", "`ON COMPLETION PRESERVE ENABLE `", '"x""y"'])
def test_an_event_is_parked_and_woken_and_others_stay_as_they_are(when: str, name: str) -> None:
    """Whatever stands in its name, its comment and what it does."""
    sql = f"CREATE EVENT {name} ON SCHEDULE {when} ON COMPLETION NOT PRESERVE {{}} COMMENT 'ENABLE' DO SELECT 'ENABLE'"
    runs, parked, off = (
        Definition("EVENT", "e", sql.format(status)) for status in ("ENABLE", "DISABLE ON SLAVE", "DISABLE")
    )
    assert (definitions.parked(runs, MARIADB), definitions.woken(parked, MARIADB)) == (parked, runs)
    assert (definitions.parked(off, MARIADB), definitions.woken(off, MARIADB)) == (off, off)
    routine = Definition("PROCEDURE", "e", sql.format("ENABLE"))
    assert definitions.parked(routine, MARIADB) == routine


def moved(places: dict[str, str], moves: list[tuple[str, str]]) -> dict[str, str]:
    """Carry out renames one after the other; nothing may be in the way."""
    for old, new in moves:
        assert new not in places
        places = {new if name == old else name: what for name, what in places.items()}
    return places


@pytest.mark.parametrize("other", ["d_new_", "d_old_"])
def test_tables_change_places_and_go_back(other: str) -> None:
    """A restore's from the side database, an undo's from the kept one; the journal says which it was."""
    uid = "u"
    side, kept = names.side_database("d", uid), names.previous_database("d", uid)
    source = side if other == "d_new_" else kept
    held = tuple(Holdings(tables, [], [], [], "c") for tables in (["a", "b"], ["b", "c"]))
    journal = Journal(uid, "d", source, kept, "previous", [], (held[0], held[1]))
    place = names.journal_database(uid)
    before = {f"`d`.`{t}`": f"live {t}" for t in "ab"} | {f"`{source}`.`{t}`": f"new {t}" for t in "bc"}
    before |= {f"`{place}`.`before`": "journal"}
    after = {f"`{kept}`.`{t}`": f"live {t}" for t in "ab"} | {f"`d`.`{t}`": f"new {t}" for t in "bc"}
    after |= {f"`{place}`.`after`": "journal"}
    assert after == moved(before, journal.moves(back=False))
    assert before == moved(after, journal.moves(back=True))


def test_definitions_survive_the_archive() -> None:
    """Bytes that are no UTF-8 too."""
    found = [Definition("FUNCTION", "f", "RETURN '\udcff ü\n'", "a@b", {"sql_mode": "ORACLE"})]
    blob = definitions.to_blob(found)
    assert (definitions.from_blob(blob), blob.count(b"\n"), blob.isascii()) == (found, 1, True)


def described(key: tuple[KeyPart, ...], engine: str = "InnoDB", kind: str = "int") -> Table:
    """A table with the columns a and b."""
    details = tuple(Column(name, kind, 8, nullable=True, touched=False) for name in ("a", "b"))
    return Table(0, "d", "t", "BASE TABLE", engine, details, (), key)


A = KeyPart("a", descending=False, whole=True)


@pytest.mark.parametrize(
    ("table", "query"),
    [
        (described((A,)), "SELECT `a` FROM `d`.`t` FORCE INDEX (PRIMARY) WHERE x ORDER BY `a`"),
        (
            described(
                (KeyPart("a", descending=True, whole=True), KeyPart("b", descending=False, whole=True))
            ),
            "SELECT `a` FROM `d`.`t` FORCE INDEX (PRIMARY) WHERE x ORDER BY `a` DESC, `b`",
        ),
        (described((KeyPart("a", descending=False, whole=False),)), "SELECT `a` FROM `d`.`t` WHERE x"),
        (described((A,), "MyISAM"), "SELECT `a` FROM `d`.`t` WHERE x"),
        (described(()), "SELECT `a` FROM `d`.`t` WHERE x"),
    ],
)
def test_rows_are_read_as_they_lie(table: Table, query: str) -> None:
    """The same from run to run, and never sorted."""
    assert query == inventory.select(Choice(table, with_rows=True, excluded=("b",)), " WHERE x")


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("`a` int,\n  PRIMARY KEY (`a`)", [A]),
        ("`a` int,\n  PRIMARY KEY (`b` DESC,`a`)", [KeyPart("b", descending=True, whole=True), A]),
        (
            "`a` text,\n  PRIMARY KEY (`a`(5)),\n  KEY `b` (`b`)",
            [KeyPart("a", descending=False, whole=False)],
        ),
        ("`a` int,\n  UNIQUE KEY `b` (`b`)", []),
        ("`PRIMARY KEY (``x``)` int COMMENT 'PRIMARY KEY (`y`)',\n  PRIMARY KEY (`a`)", [A]),
        (
            "`a` int DEFAULT 'it''s \\\\',\n  PRIMARY KEY (`a``,(`)",
            [KeyPart("a`,(", descending=False, whole=True)],
        ),
        ("`a` int,\n  PRIMARY KEY (`a`,`p` WITHOUT OVERLAPS)", None),
    ],
)
def test_a_primary_key_is_read_from_what_creates_the_table(lines: str, key: list[KeyPart] | None) -> None:
    """Whatever names and comments say; what an application's period stands for only the server knows."""
    assert definitions.primary_key(Definition("TABLE", "t", f"CREATE TABLE `t` (\n  {lines}\n)")) == key


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (described((A, KeyPart("b", descending=False, whole=True))), "a"),
        (described((A,), kind="bigint"), "a"),
        (described((A,), kind="varchar"), ""),
        (described((A,), "MyISAM"), ""),
        (described(()), ""),
    ],
)
def test_only_whole_numbers_at_the_head_of_a_key_cut_a_table(table: Table, key: str) -> None:
    """All others are read by one session."""
    assert table.number_key == key


KEYS = {
    "dense": range(1, 10_001),
    "one": [7],
    "with gaps": [n * n for n in range(2000)],
    "negative": range(-5000, 0),
    "across zero": range(-3000, 4000),
    "two clouds": [*range(1000), *range(2**62, 2**62 + 1000)],
    "the largest": [0, 2**64 - 1],
    "the smallest": [-(2**63), 2**63 - 1],
    "one far away": [*range(5000), 2**63 - 1],
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_ranges_have_about_the_same_number_of_rows(keys: Sequence[int]) -> None:
    """However the keys are spread: no range has more than it should, and no two neighbours could be one."""
    asked: list[int] = []

    def count(first: int, last: int) -> int:
        asked.append(first)
        return bisect.bisect_left(keys, last) - bisect.bisect_left(keys, first)

    inner = ranges.boundaries(keys[0], keys[-1], 300, count)
    assert inner == sorted(set(inner))
    cuts = [0, *(bisect.bisect_left(keys, first) for first in inner), len(keys)]
    pieces = [last - first for first, last in itertools.pairwise(cuts)]
    assert max(pieces) <= 300
    assert all(a + b > 300 for a, b in itertools.pairwise(pieces))
    assert len(asked) <= 4 * 64 + 8 * len(keys) / 300


def test_ranges_stay_where_they_were_when_a_table_grows() -> None:
    """So an unchanged piece is the same piece in the next backup."""

    def cut(rows: int) -> list[int]:
        return ranges.boundaries(
            1, rows, 1000, lambda first, last: max(0, min(last, rows + 1) - max(first, 1))
        )

    assert set(cut(20_000)) <= {*cut(30_000)}
    assert len(cut(20_000)) >= 19


def test_a_range_says_which_rows_it_has() -> None:
    """The outer ones are open: rows that were not there when it was cut are in one of them."""
    table = described((A,))
    size = Size(100, 100 * ranges.RANGE_BYTES)
    parts = ranges.cut(table, size, (0, 3), lambda first, last: max(0, min(last, 3) - first))
    assert [(part.segment[-2:], part.where) for part in parts] == [
        ("/0", " WHERE `a` < 1"),
        ("/1", " WHERE `a` >= 1 AND `a` < 2"),
        ("/2", " WHERE `a` >= 2"),
    ]
    assert [part.where for part in ranges.whole(table, size)] == [""]


def test_a_server_is_understood_by_its_numbers() -> None:
    """Whatever language it speaks."""
    found = failures.of_error(Error(1045, "Zugriff verweigert"), Reason.DUMP_FAILED, "reading")
    assert (found.reason, found.retriable) == (Reason.AUTHENTICATION_FAILED, False)
    assert failures.of_error(Error(2013, "weg"), Reason.LOAD_FAILED, "x").retriable is True
    waited = failures.of_error(Error(1213, "warten"), Reason.LOAD_FAILED, "x")
    assert (waited.reason, waited.retriable) == (Reason.LOAD_FAILED, True)
    assert failures.of_error(Error(9999, "?"), Reason.LOAD_FAILED, "x").reason is Reason.LOAD_FAILED
