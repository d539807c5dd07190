"""The thin kopf layer: watch events become keys in a work queue, and one function per kind does the rest.

observe (one look at the cluster) → decide (pure) → carry out (act; status last).
"""
