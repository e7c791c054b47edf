"""The sans-IO WireGuard state machine: peers, sessions, timers, allowed IPs."""
