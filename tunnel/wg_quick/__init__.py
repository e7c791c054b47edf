"""What wg-quick(8) does, without wireguard-tools."""
