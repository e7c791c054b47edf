"""The machine around the tunnel, as desired state that is applied, reconciled and undone.

    slot = find_default_route_slot() if has_default_route(allowed_ips, table) else None
    mtu = compute_mtu(endpoints)
    state = desired_state("tun0", addresses, allowed_ips, mtu=mtu, slot=slot, table=table)
    applied = apply(state)          # the interface exists; sockets carry state.mark
                                    # SlotTakenError: choose another slot
    applied = applied.reconcile(other_state)
    applied.undo()                  # or, from another process: remove("tun0")

Everything except computing and printing states blocks: call it in a worker thread. All failures
are HostError. Only `watch_link` is for the event loop (trio) itself.
"""

from tunnel.host.apply import (
    Applied,
    apply,
    keep_servers,
    missing,
    reconcile,
    remove,
    shut,
)
from tunnel.host.docker import let_pass as let_docker_pass
from tunnel.host.down_hooks import run_down_hooks
from tunnel.host.errors import HostError, SlotTakenError, UnsureHookError
from tunnel.host.foresee import Obstacle, foresee
from tunnel.host.forwarding import forwarding
from tunnel.host.hook_lock import wait_for_hook
from tunnel.host.hook_watch import HookLimits, HookStopper
from tunnel.host.hooks import check_hook_source, check_save_target, run_hooks
from tunnel.host.links import delete_link, describe_link, move_link
from tunnel.host.local_addresses import LocalAddresses
from tunnel.host.mtu import compute_mtu
from tunnel.host.netfilter import has_firewall, list_firewall
from tunnel.host.netfilter import render as render_firewall
from tunnel.host.programs import list_ruleset, run_program
from tunnel.host.record import (
    DownHooks,
    Record,
    delete_record,
    keep_hooks,
    load_record,
    other_records,
)
from tunnel.host.resolv_conf import file_of as resolv_conf_of
from tunnel.host.routes import has_default_way
from tunnel.host.rtnetlink import inside
from tunnel.host.slots import find_default_route_slot, slot_of
from tunnel.host.state import (
    MAIN_TABLE,
    Address,
    Bridge,
    BridgePort,
    DefaultRouteSlot,
    DesiredState,
    Dns,
    DockerPasses,
    Firewall,
    Item,
    Link,
    Route,
    Rule,
    connected_networks,
    describe,
    desired_state,
    difference,
    has_default_route,
    with_gateway,
)
from tunnel.host.status import InterfaceStatus, interface_status, is_standing
from tunnel.host.watch import LinkEvent, LinkGone, LinkStatus, watch_link

__all__ = [
    "MAIN_TABLE",
    "Address",
    "Applied",
    "Bridge",
    "BridgePort",
    "DefaultRouteSlot",
    "DesiredState",
    "Dns",
    "DockerPasses",
    "DownHooks",
    "Firewall",
    "HookLimits",
    "HookStopper",
    "HostError",
    "InterfaceStatus",
    "Item",
    "Link",
    "LinkEvent",
    "LinkGone",
    "LinkStatus",
    "LocalAddresses",
    "Obstacle",
    "Record",
    "Route",
    "Rule",
    "SlotTakenError",
    "UnsureHookError",
    "apply",
    "check_hook_source",
    "check_save_target",
    "compute_mtu",
    "connected_networks",
    "delete_link",
    "delete_record",
    "describe",
    "describe_link",
    "desired_state",
    "difference",
    "find_default_route_slot",
    "foresee",
    "forwarding",
    "has_default_route",
    "has_default_way",
    "has_firewall",
    "inside",
    "interface_status",
    "is_standing",
    "keep_hooks",
    "keep_servers",
    "let_docker_pass",
    "list_firewall",
    "list_ruleset",
    "load_record",
    "missing",
    "move_link",
    "other_records",
    "reconcile",
    "remove",
    "render_firewall",
    "resolv_conf_of",
    "run_down_hooks",
    "run_hooks",
    "run_program",
    "shut",
    "slot_of",
    "wait_for_hook",
    "watch_link",
    "with_gateway",
]
