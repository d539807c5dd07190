"""Servers, data and commands that the demo, the cluster tests and the bench share."""
