"""What the checks found about an object: it waits, is stalled, has failed, or is done."""

from __future__ import annotations

from dataclasses import dataclass

from tenant_backup.contract.reasons import Reason


@dataclass(frozen=True)
class Ref:
    """Names one object: the kind's name, its namespace and its name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Verdict:
    """Why an object is as it is. `retry_in` is when to look again, in seconds; None: when it changes."""

    reason: Reason
    message: str
    retry_in: float | None = None
    wait_for: tuple[Ref, ...] = ()  # look again when one of these changes


@dataclass(frozen=True)
class Waiting(Verdict):
    """Under way, or waiting for something that heals by itself."""

    retrying: bool = False  # a try has failed and there will be another


@dataclass(frozen=True)
class Stalled(Verdict):
    """A person must change something; nothing is lost until then."""


@dataclass(frozen=True)
class Failed(Verdict):
    """It ended badly, and there will be no other try."""


@dataclass(frozen=True)
class Done(Verdict):
    """It is as the spec asks."""
