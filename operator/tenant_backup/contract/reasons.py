"""The closed list of reasons, and how a stage ends with one of them.

A reason is one CamelCase word, the same in condition, Event and metric label. The message beside
it is one sentence that says what happened and what to do.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Reason(StrEnum):
    """Why something is as it is. Closed: dashboards and alerts match on these words."""

    # good or under way
    SUCCEEDED = "Succeeded"
    READY = "Ready"
    RUNNING = "Running"
    PENDING = "Pending"
    QUEUED = "Queued"
    RETRYING = "Retrying"
    APPROVAL_PENDING = "ApprovalPending"
    SUSPENDED = "Suspended"
    UNDONE = "Undone"
    OBJECTIVES_MET = "ObjectivesMet"
    WITHIN_LIMITS = "WithinLimits"
    CAPACITY_OK = "CapacityOk"
    # objectives and capacity
    BACKUP_MISSED = "BackupMissed"
    STORED_BYTES_EXCEEDED = "StoredBytesExceeded"
    STORE_NEARLY_FULL = "StoreNearlyFull"
    SMALLER_THAN_USUAL = "SmallerThanUsual"
    SLOWER_THAN_USUAL = "SlowerThanUsual"
    # the database
    DATABASE_NOT_FOUND = "DatabaseNotFound"
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    PERMISSION_DENIED = "PermissionDenied"
    CLIENT_TOO_OLD = "ClientTooOld"
    TABLE_NOT_FOUND = "TableNotFound"
    COLUMN_NOT_FOUND = "ColumnNotFound"
    UNSUPPORTED_CONTENT = "UnsupportedContent"
    DUMP_FAILED = "DumpFailed"
    DUMP_TRUNCATED = "DumpTruncated"
    LOAD_FAILED = "LoadFailed"
    ROWS_DIFFER = "RowsDiffer"
    NAME_TAKEN = "NameTaken"
    FILES_NOT_FOUND = "FilesNotFound"
    # the store
    STORE_UNAVAILABLE = "StoreUnavailable"
    STORE_PERMISSION_DENIED = "StorePermissionDenied"
    STORE_FULL = "StoreFull"
    STORE_FOREIGN = "StoreForeign"
    # the archive
    BACKUP_NOT_FOUND = "BackupNotFound"
    PACK_MISSING = "PackMissing"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    SIGNATURE_INVALID = "SignatureInvalid"
    KEY_MISSING = "KeyMissing"
    WRONG_KEY = "WrongKey"
    PARTIAL_BACKUP = "PartialBackup"
    # references and rights
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    TENANT_NOT_FOUND = "TenantNotFound"
    TENANT_NOT_READY = "TenantNotReady"
    STORE_NOT_FOUND = "StoreNotFound"
    CROSS_TENANT_ACCESS = "CrossTenantAccess"
    INVALID_SPEC = "InvalidSpec"
    FOREIGN_OBJECT = "ForeignObject"
    # the cluster
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    STAGE_KILLED = "StageKilled"
    PEER_FAILED = "PeerFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    NODE_LOST = "NodeLost"
    CANCELLED = "Cancelled"
    # Events that are no condition
    BACKUP_SUCCEEDED = "BackupSucceeded"
    RESTORE_SUCCEEDED = "RestoreSucceeded"
    BACKUP_VERIFIED = "BackupVerified"
    VERIFICATION_FAILED = "VerificationFailed"
    KEYS_CREATED = "KeysCreated"
    PREVIOUS_DROPPED = "PreviousDropped"
    FIRST_BACKUP = "FirstBackup"
    STORE_COLLECTED = "StoreCollected"
    COLLECTION_FAILED = "CollectionFailed"
    BACKUPS_IMPORTED = "BackupsImported"
    DELIVERY_FAILED = "DeliveryFailed"
    SCHEDULE_MISSED = "ScheduleMissed"
    # deletion
    PRUNED = "Pruned"
    EXPIRED = "Expired"
    HELD = "Held"
    NEWEST_GOOD = "NewestGood"
    SCHEDULE_NOT_FOUND = "ScheduleNotFound"
    DATA_DELETED = "DataDeleted"
    DATA_RETAINED = "DataRetained"
    INTERNAL_ERROR = "InternalError"


class ExitCode(IntEnum):
    """How a stage's process ends; the Job's podFailurePolicy is written from this table."""

    SUCCESS = 0
    BUG = 1  # an unexpected exception: counted against backoffLimit
    PERMANENT = 64  # cannot heal by itself: FailJob
    RETRIABLE = 75  # may heal: counted against backoffLimit
    PEER_FAILED = 76  # another container of the pod ended badly; never decides about retrying


class Failure(Exception):
    """A stage cannot go on, and knows why.

    `message` is one sentence for the user, without secrets, with the server's own error line where
    there is one. `retriable` says whether a new attempt may succeed without a person's help.
    """

    def __init__(self, reason: Reason, message: str, *, retriable: bool = False) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.retriable = retriable

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that tells the Job controller whether to try again."""
        if self.reason is Reason.PEER_FAILED:
            return ExitCode.PEER_FAILED
        return ExitCode.RETRIABLE if self.retriable else ExitCode.PERMANENT
