"""A running device as `wg` sees and sets it: engine, endpoints by name, UAPI; no conf, no host."""
