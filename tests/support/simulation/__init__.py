"""Nodes of the protocol core on a network that delays, loses and repeats, in virtual time."""
