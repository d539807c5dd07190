"""What the operator tells its surroundings: logs without secrets, an audit line per backup and restore."""
