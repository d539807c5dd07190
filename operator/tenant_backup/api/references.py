"""Names that are the same everywhere: the group and version, labels, annotations and finalizers."""

from __future__ import annotations

GROUP = "tenantbackup.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "tenantbackup"  # `kubectl get tenantbackup` lists all kinds
PART_OF = {"app.kubernetes.io/part-of": "tenant-backup"}  # on everything we bring into a cluster

FINALIZER = f"{GROUP}/data"  # held while data outside the cluster must go first

LABEL_TENANT = f"{GROUP}/tenant"
LABEL_SCHEDULE = f"{GROUP}/schedule"
LABEL_SLOT = f"{GROUP}/slot"
LABEL_HOLD = f"{GROUP}/hold"  # on a TenantBackup: retention leaves it alone

ANNOTATION_REQUESTED_BY = f"{GROUP}/requested-by"
ANNOTATION_VERIFY = f"{GROUP}/verify"  # on a TenantBackup: any new value verifies it again
ANNOTATION_COLLECT = f"{GROUP}/collect"  # on a BackupStore: any new value collects; dry-run… only lists
ANNOTATION_IMPORT = f"{GROUP}/import"  # on a BackupStore: any new value makes objects of what has none
ANNOTATION_ADOPT = f"{GROUP}/adopt"  # on a BackupStore: the id of the cluster whose prefixes are taken over
