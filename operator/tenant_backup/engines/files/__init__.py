"""Files of a volume: read into a tar, and placed from one."""
