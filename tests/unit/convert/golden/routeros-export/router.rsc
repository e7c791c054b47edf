# 2026-03-01 12:00:00 by RouterOS 7.16.1
# software id = ABCD-EFGH
#
/interface bridge
add name=bridge1
/interface wireguard
add comment="to the \"office\"" listen-port=13231 mtu=1420 name=wg-office private-key=\
    "EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
/interface list member
add interface=wg-office list=LAN
/interface wireguard peers
add allowed-address=10.255.255.1/32,192.168.50.0/24 client-dns=10.0.0.1 \
    endpoint-address=office.example.com endpoint-port=13231 interface=wg-office \
    name=peer1 persistent-keepalive=1m30s preshared-key=\
    "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=" public-key=\
    "nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8="
add allowed-address=10.255.255.9/32 comment="laptop, old" disabled=yes interface=wg-office \
    name=peer2 public-key="xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
/ip address
add address=192.168.88.1/24 interface=bridge1 network=192.168.88.0
add address=10.255.255.2/30 comment=tunnel interface=wg-office network=10.255.255.0
/ipv6 address
add address=fd00::2/64 advertise=no interface=wg-office
/ip firewall filter
add action=accept chain=input in-interface=wg-office
add action=drop chain=input
/ip route
add disabled=no distance=1 dst-address=192.168.50.0/24 gateway=wg-office pref-src="" \
    routing-table=main scope=30 suppress-hw-offload=no target-scope=10
/system script
add name=hello source=":put \"wg \$name\"\
    \n:log info wg-office"
