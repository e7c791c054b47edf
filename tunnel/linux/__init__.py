"""Interfaces of the Linux kernel that Python's library lacks; all errors here are OSError.

Network namespaces, packet sockets, the framing of netlink, numbers from the kernel's headers, and
the replacing of files. It stands below `io`, `host` and `lab`, which never import each other and
need the same of it.
"""
