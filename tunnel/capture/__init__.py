"""Packets of both crossings in one pcapng file."""
