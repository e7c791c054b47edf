"""The TUN device and the UDP sockets: file descriptors, offloads, their probes and fallbacks."""
