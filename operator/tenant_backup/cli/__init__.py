"""`tenant-backup`: everything that can be done with a store and without a cluster.

For somebody who has the bucket, the key and the recovery sheet, and for people without Kubernetes. One
module per command; it decides nothing that a stage decides, and runs the same stages as a Job's pod.
"""
