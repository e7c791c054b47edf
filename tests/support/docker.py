"""What a test needs that has a Docker engine in its lab."""

from __future__ import annotations

from tunnel.lab.docker import IMAGE, DockerEngine, engine

__all__ = ["IMAGE", "PROGRAMS", "DockerEngine", "engine"]

PROGRAMS = (
    *("dockerd", "docker", "docker-proxy", "docker-init"),
    *("containerd", "containerd-shim-runc-v2", "runc"),
    *("iptables", "ip6tables", "busybox"),
)
"""What tests of it declare as foreign."""
