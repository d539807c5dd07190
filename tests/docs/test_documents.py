"""What the documents show works: every YAML block and sample is accepted by the real API server."""

from __future__ import annotations

import re

import pytest

from hack.lab.kubectl import ROOT, Kubectl
from tenant_backup.contract.reasons import Reason

_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        (f"{page.name}-{n}", text)
        for page in pages
        for n, text in enumerate(_BLOCK.findall(page.read_text()))
    ]
    samples = [
        (path.name, path.read_text()) for path in sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
    ]
    return blocks + samples


@pytest.mark.cluster
@pytest.mark.parametrize(("name", "text"), _blocks(), ids=[name for name, _ in _blocks()])
def test_every_example_is_accepted_by_the_api_server(
    installed_types: None, namespace: Kubectl, name: str, text: str
) -> None:
    """A reader who copies and pastes is not let down."""
    namespace("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def test_the_first_backup_takes_three_objects_and_at_most_35_lines() -> None:
    """What a user writes is counted."""
    first = _BLOCK.findall((ROOT / "README.md").read_text())[0]
    assert len(first.split("---\n")) == 3
    assert len(first.splitlines()) <= 35


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """No dead ends."""
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    """Copy and paste finds its target."""
    used = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    defined = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert used - defined == set()


def test_every_reason_is_explained_and_no_other() -> None:
    """A word in a condition can be looked up."""
    rows = re.findall(r"^\| ([A-Z][A-Za-z, ]+) \|", (ROOT / "docs" / "reasons.md").read_text(), re.MULTILINE)
    explained = [word for row in rows for word in row.split(", ")]
    assert sorted(explained) == sorted(reason.value for reason in Reason)
