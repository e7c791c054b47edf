"""Two hosts in namespaces, as users of tunnel.testing have them."""

from tunnel.testing import TwoHosts, two_hosts

__all__ = ["TwoHosts", "two_hosts"]
