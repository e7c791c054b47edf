"""The form of the log, the secrets that it hides, and a writer that never blocks."""
