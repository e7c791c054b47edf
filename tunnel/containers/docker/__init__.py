"""`tunnel docker-plugin`: Docker networks whose containers reach each other through a tunnel."""
