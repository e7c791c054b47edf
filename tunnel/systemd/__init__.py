"""Tunnels as services of systemd: the unit templates, and what installs them."""
