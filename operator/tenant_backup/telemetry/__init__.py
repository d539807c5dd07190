"""What the operator tells its surroundings: logs without secrets, and an audit line per backup and restore."""
