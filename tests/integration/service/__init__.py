"""The daemon as a service: its unit, its confinement, and a systemd that runs it."""
