"""The way of a packet through both crossings, step by step."""
