"""Promises about the repository itself."""

from __future__ import annotations

import subprocess
import sys

from hack.lab.kubectl import ROOT


def test_operator_is_a_source_root_and_never_a_package() -> None:
    """A package named operator would shadow the standard library's."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    code = "import operator; print(operator.itemgetter(0)('x'))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout
        == b"x\n"
    )


def test_layers_are_kept() -> None:
    """import-linter's contracts in pyproject.toml hold."""
    done = subprocess.run(
        ["lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        executable=str(ROOT / ".local/venv/bin/lint-imports"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_constraints_hold_hashes_and_no_registry() -> None:
    """Pinned, and installable from any mirror."""
    for name in ("dev", "operator", "runner"):
        text = (ROOT / "constraints" / f"{name}.txt").read_text()
        assert "--hash=sha256:" in text
        assert "://" not in text


def test_a_stage_starts_without_heavy_imports() -> None:
    """Start-up time is on the path of every small backup."""
    code = "import sys, tenant_backup.stages.__main__, tenant_backup.stages.dump; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"pydantic", "kubernetes", "kopf", "aiohttp"} & set(loaded) == set()
