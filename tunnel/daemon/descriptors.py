"""Open files: whether a process may have as many as a tunnel needs."""

from __future__ import annotations

import resource

from tunnel.errors import DaemonError

LEAST_DESCRIPTORS = 64
"""Open files that a daemon must be allowed. It holds 25 of its own, each client takes one."""


def check_descriptors() -> None:
    """Raise DaemonError where the first client would find no descriptor left."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < LEAST_DESCRIPTORS:
        raise DaemonError(
            f"this process may open {limit} files, and a tunnel needs {LEAST_DESCRIPTORS}; raise "
            "the limit (ulimit -n 1024, or LimitNOFILE= of the service)"
        )
