"""helm, and the chart's objects on the real API server."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from hack.lab.kubectl import ROOT

CHART = ROOT / "charts" / "tenant-backup-operator"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm whatever its outcome; it talks to no cluster unless told to."""
    local = ROOT / ".local" / "bin" / "helm"
    program = str(local) if local.exists() else "helm"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(*options: str) -> list[dict[str, Any]]:
    """Return the objects that the chart makes with these options; fails the test when helm refuses."""
    done = helm("template", "tenant-backup-operator", str(CHART), "-n", "tenant-backup-system", *options)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="session")
def objects() -> list[dict[str, Any]]:
    """What the chart makes with its own values."""
    return rendered()
