"""A machine that systemd has booted, in namespaces of its own."""
