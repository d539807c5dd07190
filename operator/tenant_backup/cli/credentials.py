"""Where the command line finds the keys of an S3 store: the environment, or a file as AWS tools keep it."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path

from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason

from .private import write_secret


def provide(folder: Path, file: Path | None, environment: Mapping[str, str]) -> None:
    """Write the store's Secret below `folder`. Raises Failure."""
    found = _of_file(file, environment) if file else _of_environment(environment)
    write_secret(folder, paths.STORE, found)
    bundle = environment.get("AWS_CA_BUNDLE")
    if bundle:
        write_secret(folder, paths.STORE_CA, {"ca.crt": _readable(Path(bundle), "AWS_CA_BUNDLE")})


def _of_environment(environment: Mapping[str, str]) -> dict[str, str]:
    if environment.get("AWS_SESSION_TOKEN"):
        raise Failure(
            Reason.INVALID_SPEC,
            "temporary credentials (AWS_SESSION_TOKEN) are not supported; use a lasting access key",
        )
    values = {name: environment.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise Failure(
            Reason.KEY_MISSING,
            f"{' and '.join(missing)} not set; set them to the store's access key, or name a file with"
            " --credentials",
        )
    return {"accessKeyId": values["AWS_ACCESS_KEY_ID"], "secretAccessKey": values["AWS_SECRET_ACCESS_KEY"]}


def _of_file(file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    profile = environment.get("AWS_PROFILE", "default")
    try:
        parser.read_string(_readable(file, "--credentials").decode())
        section = parser[profile]
        return {
            "accessKeyId": section["aws_access_key_id"],
            "secretAccessKey": section["aws_secret_access_key"],
        }
    except (configparser.Error, KeyError, UnicodeDecodeError):
        # Not the parser's own words: they quote the line, and a secret may be on it.
        raise Failure(
            Reason.KEY_MISSING,
            f"{file} has no section [{profile}] with aws_access_key_id and aws_secret_access_key; write them"
            " there, one per line",
        ) from None


def _readable(file: Path, what: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(Reason.SECRET_NOT_FOUND, f"{what}: {file} cannot be read ({error.strerror})") from None
