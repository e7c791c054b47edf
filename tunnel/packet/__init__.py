"""What every room must know of packets: header layouts, the checksum, the filter language."""
