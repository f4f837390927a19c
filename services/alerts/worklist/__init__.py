"""What waits to be read, in which order and why."""
