"""What is counted while it happens: the work of this process, from its start on.

Everything else that `/metrics` says is computed at the scrape; see `metrics`.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# They would be a series more per counter, which says when the process began.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

RECONCILES = Counter(
    "tenant_backup_reconciles_total",
    "Looks at one object, by kind and result: settled, conflict (somebody was faster: looked at again), "
    "unavailable (the API server did not answer).",
    ("kind", "result"),
    registry=REGISTRY,
)
ERRORS = Counter(
    "tenant_backup_reconcile_errors_total",
    "Looks that ended in an error, by kind and reason (docs/reasons.md); InternalError is a bug of ours.",
    ("kind", "reason"),
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "tenant_backup_reconcile_duration_seconds",
    "How long one look at an object took, requests included.",
    ("kind",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
    registry=REGISTRY,
)
API_REQUESTS = Counter(
    "tenant_backup_api_requests_total",
    "Requests to the API server but watches, by method and HTTP status; error: no answer.",
    ("method", "code"),
    registry=REGISTRY,
)
