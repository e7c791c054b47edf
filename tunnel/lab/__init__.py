"""Hosts in network namespaces joined by veth, for the CLI, the benchmark and the tests."""
