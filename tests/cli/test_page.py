"""docs/command-line.md: what it shows is run as it stands."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import click
import pyrage
import pytest

from hack.lab.host_postgres import PASSWORD
from hack.lab.kubectl import ROOT
from tenant_backup.cli.commands import commands
from tests.cli.conftest import COMMAND, Owner

PAGE = (ROOT / "docs" / "command-line.md").read_text()
_BLOCK = re.compile(r"(?:<!-- ([^>]*) -->\n)?^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def marked(what: str) -> list[str]:
    """The blocks that need something else than a PostgreSQL server: marked so in a comment before them."""
    return [text for mark, _, text in _BLOCK.findall(PAGE) if mark == what]


@pytest.fixture
def environment(owner: Owner, tmp_path: Path) -> dict[str, str]:
    """A machine as the page supposes it: the program, the key, the password, the variables of the first step."""
    program = tmp_path / "bin" / "tenant-backup"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, COMMAND))} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "key.txt").write_text(owner.key.read_text())
    (tmp_path / "password").write_text(PASSWORD)
    return {
        **os.environ,
        "PATH": f"{program.parent}:{owner.server.bin}:{os.environ['PATH']}",
        "PGPASSWORD": PASSWORD,
        "STORE": owner.url,
        "TRUST": owner.trust,
        "SECOND_PERSON": str(pyrage.x25519.Identity.generate().to_public()),
    }


def test_every_command_of_the_page_works(owner: Owner, environment: dict[str, str], tmp_path: Path) -> None:
    """In the order of the page; only the names of the server's things are filled in."""
    names = {"5432": str(owner.server.port), "name: acme,": f"name: {owner.database},"}
    names |= {"--owner acme": f"--owner {owner.database}", "--user acme": f"--user {owner.database}"}
    names |= {"acme_again": f"{owner.database}_page", "acme_by_hand": f"{owner.database}_hand"}
    ran = 0
    for elsewhere, kind, text in _BLOCK.findall(PAGE):
        block = re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)
        if kind == "yaml":
            (tmp_path / "tenant.yaml").write_text(block)
        elif not elsewhere and not block.startswith(("pip ", "export STORE")):
            done = subprocess.run(
                ["bash", "-euc", block],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            ran += 1
    assert ran == 7
    for copy in (f"{owner.database}_page", f"{owner.database}_hand"):
        rows = "SELECT count(*) FROM employee"
        assert owner.server.sql(rows, copy) == owner.server.sql(rows, owner.database)


def test_every_command_has_help_with_an_example_that_it_understands() -> None:
    """The examples of --help parse."""
    for name, command in commands.commands.items():
        with click.Context(command, info_name=name) as context:
            text = command.get_help(context)
        examples = re.search(r"Examples:\n(.*)", text, re.DOTALL)
        assert examples, name
        for line in re.sub(r"\\\n\s*", "", examples[1]).splitlines():
            words = shlex.split(line)
            assert words[:2] == ["tenant-backup", name]
            known = {option for each in command.params for option in each.opts}
            assert {word for word in words if word.startswith("-")} <= known


def test_every_command_is_on_the_page() -> None:
    """Nobody finds what is not told."""
    assert [name for name in commands.commands if f"tenant-backup {name} " not in PAGE] == []
