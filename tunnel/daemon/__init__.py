"""The service: conf in, host state applied, device running, control socket served, all undone."""
