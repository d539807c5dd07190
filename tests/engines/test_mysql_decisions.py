"""The pure parts of what is said to MySQL alone: greetings, passwords, rights, code in an export."""

from __future__ import annotations

import re
import socket
import threading

import pytest
from MySQLdb import OperationalError

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.mysql import grants, greeting, passwords, script
from tenant_backup.engines.mysql.definitions import Definition
from tenant_backup.engines.mysql.dialects import MYSQL


def packet(payload: bytes) -> bytes:
    """The first packet of a connection."""
    return len(payload).to_bytes(3, "little") + b"\0" + payload


def hello(capabilities: int) -> bytes:
    """What a server says first."""
    return packet(
        b"\n9.7.4\0" + b"\1\0\0\0" + b"saltsalt" + b"\0" + capabilities.to_bytes(2, "little") + b"\xff\2\0"
    )


def greeted(said: bytes) -> bool:
    """What we think of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            return greeting.offers_tls("127.0.0.1", server.getsockname()[1], 5)
        finally:
            thread.join()


def test_a_server_says_first_whether_it_speaks_tls() -> None:
    """Before it is told a name or a password."""
    assert [greeted(hello(0xFFFF)), greeted(hello(0xFFFF & ~0x0800))] == [True, False]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (packet(b"\xff\x10\x04Too many connections"), 1040),
        (b"", 2013),
        (hello(0xFFFF)[:20], 2013),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", 2013),
    ],
)
def test_what_is_no_greeting_has_the_number_of_its_error(said: bytes, number: int) -> None:
    """So it is told apart like any other."""
    with pytest.raises(OperationalError) as caught:
        greeted(said)
    assert caught.value.args[0] == number


def test_a_password_becomes_what_the_server_keeps_of_it() -> None:
    """As `openssl passwd -5 -salt saltstring` says; and nothing of the password."""
    assert (
        passwords._sha256_crypt(b"Hello world!", b"saltstring")
        == "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
    )
    clause = passwords.caching_sha2("Hello world!")
    assert re.fullmatch(r"IDENTIFIED WITH caching_sha2_password AS '\$A\$005\$[./0-9A-Za-z]{63}'", clause)
    assert "Hello" not in clause


def test_rights_that_are_taken_back_for_a_database_do_not_hold_there() -> None:
    """With partial_revokes; rights of their own lines, without a space between them, count."""
    lines = [
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `t`@`%`",
        "GRANT SHOW_ROUTINE,CONNECTION_ADMIN ON *.* TO `t`@`%`",
        "GRANT `reader`@`%` TO `t`@`%`",
        "REVOKE TRIGGER ON `acme`.* FROM `t`@`%`",
    ]
    grants.refuse_blind(grants.parse(lines, "'t'@'%'", "other", MYSQL), "other")
    with pytest.raises(Failure) as caught:
        grants.refuse_blind(grants.parse(lines, "'t'@'%'", "acme", MYSQL), "acme")
    assert caught.value.message.endswith("run: GRANT TRIGGER ON `acme`.* TO 't'@'%'")
    assert grants.parse(lines, "'t'@'%'", "acme", MYSQL).beyond == ["EVENT", "SELECT", "SHOW VIEW", "TRIGGER"]


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        (
            "BEGIN -- it's\n  SELECT 'a\\'b', \"x;y\", `z``;`; # \\! touch\n /* ' \\! */ SET @a := 3*-1/2; END",
            "",
        ),
        ("SELECT /*+ MAX_EXECUTION_TIME(1) */ 'ü;\n//0//' || '\\\\'", "ANSI_QUOTES"),
        ("SELECT ''''", "NO_BACKSLASH_ESCAPES"),
        ("BEGIN\n  use_it: LOOP\n  END LOOP;\nEND", ""),
    ],
)
def test_code_that_everybody_reads_alike_stands_between_delimiters(body: str, mode: str) -> None:
    """Which are not in it."""
    item = Definition("PROCEDURE", "p", f"CREATE PROCEDURE `p`()\n{body}", "", {"sql_mode": mode})
    end = "//1//" if "//0//" in body else "//0//"
    text = script.definition(item, MYSQL).decode()
    assert text == f"{item.session};\ndelimiter {end}\n{item.sql}\n{end}\ndelimiter ;\n"


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ("SELECT \\N", {}),
        ("SELECT 1;\r\n", {}),
        ("SELECT 'a\rb'", {}),
        ("SELECT 1 /*! + 1 */", {}),
        ("SELECT 1 --\x01 '\n", {}),
        ("SELECT `a\\`", {}),
        ('SELECT "a\\"', {"sql_mode": "ANSI_QUOTES"}),
        ("SELECT 'a\\', '; \\! touch x ;'", {"sql_mode": "NO_BACKSLASH_ESCAPES"}),
        ("SELECT\nsystem `touch x`\nFROM t", {}),
        ("BEGIN\n  \tstatus\n; END", {}),
        ("SELECT 'a'", {"character_set_client": "sjis"}),
        ("SELECT 'a", {}),
    ],
)
def test_code_that_a_program_could_change_or_obey_is_refused(body: str, settings: dict[str, str]) -> None:
    """By its name, with a way out."""
    item = Definition("FUNCTION", "f", f"CREATE FUNCTION `f`()\n{body}", "", settings)
    with pytest.raises(Failure) as caught:
        script.definition(item, MYSQL)
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT
    assert ("FUNCTION f" in caught.value.message, "restore" in caught.value.message) == (True, True)


def test_views_that_are_not_plain_are_prepared_from_a_string() -> None:
    """MySQL executes no text by itself."""
    text = script.definition(Definition("VIEW", "v", "CREATE VIEW `v` AS select '\\\\'"), MYSQL).decode()
    assert text.endswith(
        "PREPARE tenant_backup FROM @tenant_backup;\nEXECUTE tenant_backup;\nDEALLOCATE PREPARE tenant_backup;\n"
    )
