"""Labels and annotations on our Jobs and their pods: how they are found, and whose they are."""

from __future__ import annotations

from tenant_backup.decisions.names import shortened

PREFIX = "tenantbackup.dev"
KIND = f"{PREFIX}/kind"  # of the object the Job is about; its presence makes the Job ours
NAME = f"{PREFIX}/name"  # shortened, for people and selectors
UID = f"{PREFIX}/uid"  # exact
TENANT = f"{PREFIX}/tenant"
PURPOSE = f"{PREFIX}/purpose"
GENERATION = f"{PREFIX}/generation"
ATTEMPT = f"{PREFIX}/attempt"
JOB = "batch.kubernetes.io/job-name"  # on pods, by the Job controller
SUBJECT = f"{PREFIX}/subject"  # annotation: the object's full name, which may be too long for a label


def label_value(name: str) -> str:
    """Return `name` as a label value of at most 63 characters."""
    return shortened(name)
