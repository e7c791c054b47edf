"""The control sockets of a running tunnel and their clients."""
