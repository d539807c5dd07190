"""Write everything that is made from the API types and the chart; `--check` fails when a file is stale.

    python -m hack.generate [--check]

types -> crds/, its copies in the chart and in manifests/base, docs/reference.md;
    metrics and the chart's rules -> docs/metrics.md;
    chart -> manifests/base/operator.yaml (with helm).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hack.metrics_page import metrics_page
from hack.reference import reference_page
from tenant_backup.api.schema import custom_resource_definitions

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "tenant-backup-operator"
HEADER = "# Made by `python -m hack.generate` from operator/tenant_backup/api; do not edit.\n"
BASE_HEADER = "# Made by `python -m hack.generate` from charts/tenant-backup-operator; do not edit.\n"
KEEP = {"helm.sh/resource-policy": "keep"}  # uninstalling the chart must not erase every backup object


def main(arguments: list[str]) -> int:
    """Write or check all generated files; return 1 when a check found a stale one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in _from_types() if _settle(path, text, check=check)]
    # The chart is rendered only after its CRDs are in place.
    stale += [path for path, text in _from_chart() if _settle(path, text, check=check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'stale; run python -m hack.generate' if check else 'written'}")
    return 1 if check and stale else 0


def _settle(path: Path, text: str, *, check: bool) -> bool:
    """Return whether the file differed; write it unless only checking."""
    if path.exists() and path.read_text() == text:
        return False
    if not check:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return True


def _from_types() -> Iterator[tuple[Path, str]]:
    definitions = custom_resource_definitions()
    for plural, definition in definitions.items():
        yield ROOT / "crds" / f"{plural}.yaml", HEADER + _yaml(definition)
        yield CHART / "templates" / "crds" / f"{plural}.yaml", _chart_copy(definition)
    # One file: kustomize reads nothing above its own folder.
    everything = "---\n".join(_yaml(definition) for definition in definitions.values())
    yield ROOT / "manifests" / "base" / "crds.yaml", HEADER + everything
    yield ROOT / "docs" / "reference.md", reference_page()
    yield ROOT / "docs" / "metrics.md", metrics_page()


def _chart_copy(definition: dict[str, Any]) -> str:
    metadata = {**definition["metadata"], "annotations": KEEP}
    text = _yaml({**definition, "metadata": metadata})
    assert "{{" not in text, "a description would be read as a template"
    return f"{HEADER}{{{{- if .Values.crds.install }}}}\n{text}{{{{- end }}}}\n"


def _from_chart() -> Iterator[tuple[Path, str]]:
    local = ROOT / ".local" / "bin" / "helm"
    helm = str(local) if local.exists() else shutil.which("helm")
    if helm is None:
        print("manifests/base/operator.yaml: left alone, helm is not installed (make cluster-up brings it)")
        return
    options = ["--namespace", "tenant-backup-system", "--set", "crds.install=false"]
    command = [helm, "template", "tenant-backup-operator", str(CHART), *options]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    documents = [_without_helm(document) for document in yaml.safe_load_all(rendered) if document]
    text = "---\n".join(_yaml(document) for document in documents)
    yield ROOT / "manifests" / "base" / "operator.yaml", BASE_HEADER + text


def _without_helm(document: Any) -> Any:
    """Drop the labels that say Helm owns the object: kustomize users own it themselves."""
    if isinstance(document, list):
        return [_without_helm(item) for item in document]
    if not isinstance(document, dict):
        return document
    owned = {"helm.sh/chart", "app.kubernetes.io/managed-by"}
    return {key: _without_helm(value) for key, value in document.items() if key not in owned}


def _yaml(document: Any) -> str:
    return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, width=110, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    """Writes shared objects out each time: aliases are hard to read and to diff."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name and shape are PyYAML's
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
