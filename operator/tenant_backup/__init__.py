"""Back up, prove and restore the databases of many tenants on Kubernetes."""

__version__ = "0.1.0"
