"""A Tenant object in a file, for people without a cluster; fields are checked as an API server does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tenant_backup.api import Tenant
from tenant_backup.contract.reasons import Failure, Reason


def read(file: Path) -> Tenant:
    """Return the Tenant in a YAML file. Raises Failure(INVALID_SPEC)."""
    document = _document(file)
    metadata = {"namespace": "default", **document.get("metadata", {})}
    try:
        tenant = Tenant.model_validate({**document, "metadata": metadata})
    except (ValidationError, TypeError) as error:
        raise _invalid(file, _first(error)) from None
    # A misspelled field must not be ignored: it may be the one that keeps passwords out of the backup.
    written = tenant.spec.model_dump(by_alias=True, exclude_unset=True)
    unknown = next(_unknown(document["spec"], written, "spec"), None)
    if unknown:
        raise _invalid(file, f"{unknown} is not a field of a Tenant")
    return tenant


def _document(file: Path) -> dict[str, Any]:
    try:
        documents = [each for each in yaml.safe_load_all(file.read_text()) if each is not None]
    except OSError as error:
        raise _invalid(file, f"it cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(file, f"it is not YAML ({str(error).splitlines()[0]})") from None
    tenants = [each for each in documents if isinstance(each, dict) and each.get("kind") == "Tenant"]
    if len(tenants) != 1:
        raise _invalid(file, f"it holds {len(tenants)} objects of kind Tenant, not one")
    return tenants[0]


def _unknown(given: Any, known: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from _unknown(value, known[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}"
    elif isinstance(given, list) and isinstance(known, list | tuple):
        for at, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(one, other, f"{where}[{at}]")


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "its metadata or spec is no object"
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"


def _invalid(file: Path, what: str) -> Failure:
    return Failure(Reason.INVALID_SPEC, f"{file}: {what}; correct it, docs/reference.md has the fields")
