:log info "VPN"
/interface/wireguard/add name=wg1 private-key="EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
/interface/wireguard/peers/add interface=wg1 public-key="nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8=" \
  endpoint-address=2001:db8::1 endpoint-port=51820 allowed-address=0.0.0.0/0,::/0 persistent-keepalive=00:00:25
/ip/address add address=10.0.0.2/32 interface=wg1
/ip/route/add dst-address=10.20.0.0/16 gateway=wg1
/ip/route/add dst-address=10.21.0.0/16 gateway=wg1 routing-table=vpn
