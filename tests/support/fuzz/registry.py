"""All targets, and the modules that read bytes without one, each with the reason."""

from __future__ import annotations

from tests.support.fuzz import files, lookups, programs, pump, wire

TARGETS = {
    target.name: target
    for target in (
        *wire.TARGETS,
        *pump.TARGETS,
        *programs.TARGETS,
        *lookups.TARGETS,
        *files.TARGETS,
    )
}

ROOMS_WITHOUT = {
    "tunnel.bench": "measures, and reads what its own programs print",
    "tunnel.lab": "hosts for trials, and reads what its own programs print",
}
"""Rooms of which no module needs a target."""

_KERNEL = "what the kernel says of itself, in /proc, /sys or by a socket option"
_MACHINE = "files of this machine that only its administrator writes"
_OWN = "what another process of this program says, with the same rights"
_PASSES = "hands the bytes on, unread, to a module that has a target"

MODULES_WITHOUT = {
    "crypto.xchacha20poly1305": "a block of the cipher, of a fixed length",
    "tunnel.cli.cni": _PASSES,
    "tunnel.cli.convert": _PASSES,
    "tunnel.cli.keys": _PASSES,
    "tunnel.cli.life": _KERNEL,
    "tunnel.cli.new": "whether a terminal is there",
    "tunnel.cli.pair": "whether a terminal is there",
    "tunnel.cli.top.command": "single keys of the user's terminal",
    "tunnel.cli.version": "a file of the package",
    "tunnel.cli.web": "a password, which any text is",
    "tunnel.config.peers": _PASSES,
    "tunnel.config.save": _PASSES,
    "tunnel.containers.forward": "hands the bytes on, unread, to the container",
    "tunnel.containers.messages": _OWN,
    "tunnel.containers.mounts": _MACHINE,
    "tunnel.control.async_client": _PASSES,
    "tunnel.control.client": _PASSES,
    "tunnel.control.clients": _PASSES,
    "tunnel.control.json_client": _OWN,
    "tunnel.daemon.keeper": _OWN,
    "tunnel.daemon.metrics": "a number of the conf, for which no server is asked",
    "tunnel.daemon.rights": _KERNEL,
    "tunnel.daemon.sd_job": _KERNEL,
    "tunnel.daemon.succession": _OWN,
    "tunnel.doctor.elsewhere": _OWN,
    "tunnel.doctor.machine": _KERNEL,
    "tunnel.doctor.reference": "a document of the source",
    "tunnel.host.dns": _MACHINE,
    "tunnel.host.in_use": _KERNEL,
    "tunnel.host.iproute": "the answers of the kernel to our own requests, which pyroute2 decodes",
    "tunnel.host.links": _KERNEL,
    "tunnel.host.local_addresses": "a message that something has changed, which is not read",
    "tunnel.host.route_watch": "a message that something has changed, which is not read",
    "tunnel.host.sysctl": _KERNEL,
    "tunnel.io.gso": _KERNEL,
    "tunnel.io.tun": _KERNEL,
    "tunnel.io.udp_socket": _PASSES,
    "tunnel.linux.namespaces": _KERNEL,
    "tunnel.linux.packet_socket": _KERNEL,
    "tunnel.linux.ports": _KERNEL,
    "tunnel.linux.processes": _KERNEL,
    "tunnel.linux.rights": _KERNEL,
    "tunnel.pair.agent": "tokens, which are compared; requests go to a module that has a target",
    "tunnel.pair.ends": _PASSES,
    "tunnel.pair.installing": _MACHINE,
    "tunnel.pair.ssh": "what the user's own ssh and a shell print, as texts",
    "tunnel.systemd.units": _MACHINE,
    "tunnel.trace.trace_table": "the errors of nft, which are shown",
    "tunnel.web.journal": _MACHINE,
    "tunnel.web.login": _MACHINE,
    "tunnel.web.serve": "files of the package",
}
