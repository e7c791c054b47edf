"""Numbers from the Linux headers that Python's modules do not carry.

The ioctl numbers are those of architectures with the generic encoding (x86, Arm, RISC-V, s390).
"""

# linux/if.h
IFNAMSIZ = 16
IFF_UP = 0x1

# linux/if_tun.h
IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000
TUNGETIFF = 0x800454D2
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNGETDEVNETNS = 0x54E3

# linux/sockios.h
SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCGIFINDEX = 0x8933

# linux/sched.h
CLONE_NEWNET = 0x40000000

# asm-generic/socket.h
SO_ATTACH_FILTER = 26
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_MARK = 36
SO_MEMINFO = 55
SK_MEMINFO_RMEM_ALLOC = 0
SK_MEMINFO_WMEM_ALLOC = 2
SK_MEMINFO_DROPS = 8  # index into SO_MEMINFO's array of 32-bit numbers
SK_MEMINFO_VARS = 9

# linux/in.h
IP_TOS = 1
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVTOS = 13
IP_MTU = 14
IP_PMTUDISC_DONT = 0
IP_PMTUDISC_PROBE = 3

# linux/ipv6.h
IPV6_MIN_MTU = 1280
"""The least MTU of a link with IPv6 (RFC 8200, section 5). Below, the kernel takes IPv6 off it."""

# linux/in6.h
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_RECVTCLASS = 66
IPV6_TCLASS = 67
IPV6_PMTUDISC_DONT = 0
IPV6_PMTUDISC_PROBE = 3

# linux/if_ether.h
ETH_P_ALL = 0x0003

# linux/if_packet.h
SOL_PACKET = 263  # linux/socket.h
PACKET_STATISTICS = 6
PACKET_OTHERHOST = 3
PACKET_OUTGOING = 4

# linux/udp.h
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
