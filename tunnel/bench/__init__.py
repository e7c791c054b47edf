"""Measurements of ours and of others, side by side in the same lab."""
