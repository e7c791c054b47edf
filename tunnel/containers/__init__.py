"""Programs whose only network is a tunnel: a command in namespaces of its own."""
