"""What an S3 server's refusal means for us, and one sentence about it.

obstore reports an error as text: the status, the server's XML, and after it a debug dump that may hold
anything. Only the server's own code and message, or the innermost network error, leave this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from obstore.exceptions import AlreadyExistsError as Exists

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason

from .base import AlreadyExistsError, NotFoundError

_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_QUOTED = re.compile(r'(?:message|error): "([^"\n]{1,200})"')
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")

# A 404 with another code is about something else than the object. HEAD has no body, so no code.
_ABSENT = {"", "NoSuchKey", "NoSuchVersion", "NotFound"}
_DENIED = {"XAdminUserNotFound"}  # versitygw says 404 to an access key it does not know
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "NoSpaceLeft", "StorageFull"}
_SPEC = {"InvalidBucketName", "AuthorizationHeaderMalformed", "PermanentRedirect"}
# Damaged on the way: the server's check did its work, and the next try may pass.
_DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"}
_BUSY = {"RequestTimeout", "SlowDown", "Throttling", "OperationAborted", "ConditionalRequestConflict"}


@dataclass(frozen=True)
class _Answer:
    status: int  # 0: no answer came
    code: str
    line: str  # the server's or network's own words


class Explainer:
    """Turns obstore's exceptions into ours, in sentences about one store."""

    def __init__(self, described: jobs.Store) -> None:
        at = f" at {described.endpoint}" if described.endpoint else ""
        self._store = f"the store s3://{described.bucket}{at}"
        self._keys = f'the keys in Secret "{described.secret}"' if described.secret else "the access key"

    def error(self, error: Exception, name: str) -> Exception:
        """Return NotFoundError, AlreadyExistsError or the Failure that `error` means."""
        answer = _read(error)
        if isinstance(error, FileNotFoundError) and answer.code in _ABSENT:
            return NotFoundError(name)
        if isinstance(error, Exists) and answer.status != 409:  # 409: two writers at once, ask again
            return AlreadyExistsError(name)
        return self._failure(answer)

    def failure(self, error: Exception) -> Failure:
        """Return the Failure that `error` means, whatever object it was about."""
        return self._failure(_read(error))

    def misconfigured(self, error: Exception) -> Failure:
        """Return the Failure for a client that could not even be built."""
        line = str(error).splitlines()[0][:200]
        return Failure(Reason.INVALID_SPEC, f"{self._store} cannot be used: {line}; correct the BackupStore")

    def _failure(self, answer: _Answer) -> Failure:
        said = f"({answer.line})"
        if answer.code in _FULL or answer.status == 507:
            return Failure(
                Reason.STORE_FULL, f"{self._store} is full {said}; free space or raise its quota, then retry"
            )
        if answer.code == "NoSuchBucket":
            return Failure(
                Reason.STORE_NOT_FOUND,
                f"{self._store} does not exist {said}; create the bucket or correct its name",
            )
        if answer.code in _SPEC or 300 <= answer.status < 400:
            message = f"{self._store} refused the request {said}; correct bucket, region or endpoint"
            return Failure(Reason.INVALID_SPEC, message)
        if answer.status in (401, 403) or answer.code in _DENIED:
            return Failure(
                Reason.STORE_PERMISSION_DENIED,
                f"{self._store} refused access {said}; correct {self._keys} or give the right to list, read"
                " and write",
            )
        return self._unavailable(answer)

    def _unavailable(self, answer: _Answer) -> Failure:
        said = f"({answer.line})"
        if answer.line.startswith("invalid certificate"):
            message = f"{self._store} is not trusted {said}; set caSecretRef or renew its certificate"
            return Failure(Reason.STORE_UNAVAILABLE, message)
        if answer.status == 0:
            message = f"{self._store} cannot be reached {said}; check its endpoint and that it runs"
            return Failure(Reason.STORE_UNAVAILABLE, message, retriable=True)
        heals = answer.status >= 500 or answer.status in (408, 409, 429) or answer.code in _DAMAGED | _BUSY
        message = f"{self._store} answered {answer.status} {said}; check the store's own log"
        return Failure(Reason.STORE_UNAVAILABLE, message, retriable=heals)


def _read(error: Exception) -> _Answer:
    text = str(error)
    head = text.split("\n\nDebug source:", maxsplit=1)[0]
    status = _STATUS.search(head)
    if status is None:
        return _Answer(0, "", _network_line(text))
    code, message = _CODE.search(head), _MESSAGE.search(head)
    words = [match.group(1).rstrip(".") for match in (code, message) if match]
    line = ": ".join(words) or f"{status.group(1)} {status.group(2)}".strip()
    return _Answer(int(status.group(1)), code.group(1) if code else "", line)


def _network_line(text: str) -> str:
    certificate = _CERTIFICATE.search(text)
    if certificate:
        return f"invalid certificate: {certificate.group(1)}"
    if "TimedOut" in text or "kind: Timeout" in text:
        return "it did not answer in time"
    quoted = _QUOTED.findall(text)
    return quoted[-1] if quoted else "the connection broke"
