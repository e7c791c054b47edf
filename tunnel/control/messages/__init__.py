"""What crosses the control socket as JSON: one dataclass for each result and event."""
