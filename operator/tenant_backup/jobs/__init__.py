"""From a plan's Run to a Job manifest, and from a finished Job back to what happened."""
