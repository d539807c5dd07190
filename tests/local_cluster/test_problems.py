"""What a machine that cannot carry the local cluster is told: one sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hack.localcluster import builds, checks, lifecycle
from hack.localcluster.say import Problem


@pytest.fixture
def fresh_go_version() -> Iterator[None]:
    """Forget which Go was found, before and after."""
    builds.go_version.cache_clear()
    yield
    builds.go_version.cache_clear()


def _go_that_says(version: str, folder: Path) -> str:
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_user_who_is_not_root_is_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Problem, match=r"needs root .* run this with sudo"):
        checks.machine_is_suitable()


def test_another_system_than_linux_is_told_to_use_a_virtual_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Problem, match="needs Linux"):
        checks.machine_is_suitable()


def test_a_full_disk_is_reported_with_what_is_free_and_what_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**30))
    with pytest.raises(Problem, match=r"3\.0 GiB free, 10 GiB are needed"):
        checks.machine_is_suitable()


@pytest.mark.usefixtures("fresh_go_version")
def test_a_missing_go_is_named_with_the_version_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match=r"Go is missing: install Go 1\.26 or newer"):
        builds.go_version()


@pytest.mark.usefixtures("fresh_go_version")
def test_an_old_go_is_named_with_the_version_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", _go_that_says("go1.22.1", tmp_path))
    with pytest.raises(Problem, match=r"found go1\.22\.1, install Go 1\.26 or newer"):
        builds.go_version()


def test_a_taken_port_is_reported_with_the_program_and_pid_that_hold_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(checks, "PORTS", [("127.0.0.1", port, "etcd")])
        with pytest.raises(Problem, match=rf"port {port} .* for etcd, is taken by .*pid {os.getpid()}"):
            checks.ports_are_free()


def test_an_archive_that_does_not_exist_is_named() -> None:
    with pytest.raises(Problem, match=r"no such image archive: /nowhere\.tar"):
        lifecycle.load(Path("/nowhere.tar"))


def test_a_problem_is_printed_as_one_line_without_a_traceback() -> None:
    command = [sys.executable, "-m", "hack.localcluster", "load", "/nowhere.tar"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: no such image archive: /nowhere.tar.\n")
