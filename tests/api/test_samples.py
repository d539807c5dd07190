"""Every sample is taken by the real API server, and the first backup stays as short as promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hack.lab.kubectl import ROOT, Kubectl

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


def test_a_first_backup_is_three_objects_in_at_most_35_lines() -> None:
    """Comments count."""
    text = (ROOT / "manifests" / "samples" / "first-backup.yaml").read_text()
    kinds = [document["kind"] for document in yaml.safe_load_all(text)]
    assert kinds == ["Tenant", "BackupStore", "TenantBackup"]
    assert len(text.splitlines()) <= 35


@pytest.mark.cluster
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_the_api_server_takes_the_sample(installed_types: None, namespace: Kubectl, sample: Path) -> None:
    """Server-side dry-run with strict validation: a misspelt field is an error."""
    done = namespace.run("apply", "--dry-run=server", "--validate=strict", "-f", str(sample))
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.cluster
def test_the_api_server_takes_what_kustomize_builds(namespace: Kubectl) -> None:
    """In a namespace of its own: an installed chart is not disturbed, and does not disturb."""
    text = namespace("kustomize", str(ROOT / "manifests" / "base"))
    text = text.replace("tenant-backup-system", namespace.namespace)
    documents = [document for document in yaml.safe_load_all(text) if document["kind"] != "Namespace"]
    options = ("--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict")
    done = namespace.run("apply", *options, "-f", "-", stdin=yaml.safe_dump_all(documents))
    assert done.returncode == 0, done.stderr.decode()
    kinds = {document["kind"] for document in documents}
    assert {"CustomResourceDefinition", "Deployment", "ValidatingAdmissionPolicy", "ClusterRole"} <= kinds
