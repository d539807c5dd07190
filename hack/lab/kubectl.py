"""Everything the demo, the tests and the bench do to a cluster, they do with kubectl, as users do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCAL_KUBECONFIG = ROOT / ".local" / "kubeconfig"


class KubectlError(RuntimeError):
    """kubectl ended badly; the message is what it printed."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl bound to one cluster and one namespace."""

    namespace: str = "default"
    context: str | None = None  # None: the local cluster of this checkout

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, check: bool = True) -> str:
        """Run kubectl and return its standard output as text. Raises KubectlError."""
        done = self.run(*arguments, stdin=stdin)
        if check and done.returncode:
            raise KubectlError(
                f"kubectl {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}"
            )
        return done.stdout.decode(errors="replace")

    def run(self, *arguments: str, stdin: str | bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl whatever its outcome."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        command = [*self._command(), *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=False, env=self._environment())

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start kubectl and leave it running: port-forward, exec with a stream."""
        return subprocess.Popen([*self._command(), *arguments], env=self._environment(), **options)

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply objects (JSON is YAML)."""
        self("apply", "-f", "-", stdin="\n---\n".join(json.dumps(document) for document in documents))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return one object, or None when it does not exist."""
        text = self("get", kind, name, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else None

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of a kind."""
        return list(json.loads(self("get", kind, "-o", "json", *arguments))["items"])

    def wait(
        self,
        kind: str,
        name: str,
        condition: Callable[[dict[str, Any]], bool],
        seconds: float = 60,
    ) -> dict[str, Any]:
        """Return the object once `condition` holds of it. Raises TimeoutError with its status."""
        give_up, found = time.monotonic() + seconds, None
        while (left := give_up - time.monotonic()) > 0:
            for found in self._versions(kind, name, left):
                if condition(found):
                    return found
        status = json.dumps((found or {}).get("status"), indent=1, ensure_ascii=False)
        raise TimeoutError(f"{kind}/{name} did not get there within {seconds:.0f} s; status: {status}")

    def _versions(self, kind: str, name: str, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield the object as it is, whenever it changes, for so many seconds or until the watch breaks.

        One kubectl that watches: asking a few times a second kept a fifth of a core busy.
        """
        which = ["get", kind, f"--field-selector=metadata.name={name}"]
        how = ["--output=json", "--watch", "--output-watch-events", f"--request-timeout={ceil(seconds)}s"]
        began = time.monotonic()
        with self.popen(*which, *how, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            try:
                for line in child.stdout or ():
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]
                said = child.stderr.read() if child.stderr else ""
                if child.wait() and time.monotonic() - began < min(1.0, seconds):
                    raise KubectlError(f"kubectl {' '.join(which)}: {said.strip()}")
            finally:
                child.kill()

    def within(self, namespace: str) -> Kubectl:
        """The same cluster, another namespace."""
        return Kubectl(namespace, self.context)

    def _command(self) -> list[str]:
        local = ROOT / ".local" / "bin" / "kubectl"
        program = str(local) if local.exists() else "kubectl"
        where = ["--context", self.context] if self.context else ["--kubeconfig", str(LOCAL_KUBECONFIG)]
        return [program, *where, "--namespace", self.namespace]

    def _environment(self) -> dict[str, str]:
        # Without a named context no foreign cluster is ever touched.
        drop = set() if self.context else {"KUBECONFIG"}
        return {key: value for key, value in os.environ.items() if key not in drop}


def condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return one condition of an object's status, {} when it is not there."""
    for item in document.get("status", {}).get("conditions", []):
        if item["type"] == kind:
            return dict(item)
    return {}


def is_true(kind: str) -> Callable[[dict[str, Any]], bool]:
    """A predicate for `wait`: the condition is True and speaks of the present generation."""

    def check(document: dict[str, Any]) -> bool:
        found = condition(document, kind)
        return found.get("status") == "True"

    return check


def is_over(document: dict[str, Any]) -> bool:
    """A predicate for `wait`: a TenantBackup or TenantRestore has come to an end."""
    return document.get("status", {}).get("state") in {"Succeeded", "Failed"}
