"""`tunnel top`: what the daemons answer, and the screen made of it."""
