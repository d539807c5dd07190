"""`make bench`: ratios of two things measured alternately in one run, and first absolute figures."""
