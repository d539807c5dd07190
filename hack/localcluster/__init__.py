"""A real single-node Kubernetes on a bare Debian machine, for development, the demo and the tests.

Run `python3 -m hack.localcluster --help` (or `make help`). Standard library only: it has to run before
anything is installed. Nothing here is part of the product.
"""
