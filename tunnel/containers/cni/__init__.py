"""A CNI plugin: networks of containers that reach other hosts through a tunnel.

Follows the Container Network Interface specification 1.0.0 (containernetworking/cni, SPEC.md).
"""
