"""What stands between a backbone and the heads of a task."""
