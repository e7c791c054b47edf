"""The one exception family of this room."""

import errno
import os

from tunnel.errors import TunnelError

# Remedies for errors of the kernel, by errno. Only those that a person can act upon.
_REMEDIES = {
    errno.EPERM: "run as root, or give the program CAP_NET_ADMIN",
    errno.EACCES: "if IPv6 is off here, turn it on (sysctl -w net.ipv6.conf.all.disable_ipv6=0), "
    "or take its addresses and networks out of Address and AllowedIPs",
    errno.EAFNOSUPPORT: "the kernel was started without IPv6 (ipv6.disable=1): start it with IPv6, "
    "or take IPv6 addresses and networks out of Address and AllowedIPs",
    errno.EEXIST: "remove the other one first, or take this one out of the conf",
    errno.ENODEV: "the interface is gone: bring the tunnel up again",
    errno.ENETDOWN: "set the interface up first",
    errno.ENOSPC: "make room on the disk that holds the state file",
    errno.EROFS: "make the folder of the state file writable",
    errno.EOPNOTSUPP: "the kernel lacks this feature: load its module or use another kernel",
    errno.EINVAL: "check the value in the conf",
}


class HostError(TunnelError):
    """A change of the machine failed; what had been done was undone.

    `step` is what was being done ("add route"), `subject` to what ("10.0.0.0/8 dev tun0"),
    `reason` what went wrong and `remedy` what a person can do about it.
    """

    code = "host"

    def __init__(self, step: str, subject: str, reason: str, remedy: str = "") -> None:
        text = f"{step} {subject}: {reason}"
        super().__init__(f"{text} ({remedy})" if remedy else text)
        self.step = step
        self.subject = subject
        self.reason = reason
        self.remedy = remedy
        self.errno = 0
        """The kernel's number for the reason; 0 if it came from elsewhere."""

    @classmethod
    def from_errno(cls, step: str, subject: str, code: int, remedy: str = "") -> "HostError":
        """The error for a kernel's errno, with the usual remedy unless one is given."""
        error = cls(step, subject, os.strerror(abs(code)), remedy or _REMEDIES.get(abs(code), ""))
        error.errno = abs(code)
        return error


class UnsureHookError(HostError):
    """A Down hook failed that may have had nothing to undo: its daemon was killed before."""


class SlotTakenError(HostError):
    """Another tunnel has taken the slot chosen for a default route: choose another."""

    code = "slot_taken"
