"""Pure functions over buffers: split, seal, open, coalesce."""
