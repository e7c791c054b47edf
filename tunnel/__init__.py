"""A userspace VPN on TUN that speaks the WireGuard protocol."""
