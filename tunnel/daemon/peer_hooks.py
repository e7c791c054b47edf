"""PeerUp and PeerDown: commands that run when a peer connects and disconnects.

They run one at a time, in the order of the events, in the shell that runs the other hooks. What is
known of the peer is in the environment, and nothing of it in the command: a name or an address is
text of others, and no shell reads it as a command.

When the tunnel goes down, PeerDown runs for each peer that is connected. Across a restart that
keeps the sessions nothing runs: the peers stay connected.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from tunnel import host
from tunnel.config import InterfaceConfig, TunnelConfig
from tunnel.daemon import redaction

log = logging.getLogger("tunnel")

MAX_WAITING: Final = 1024
"""Events that wait for the hooks of earlier ones; of more, there is a line in the log."""

KINDS: Final = {"connected": "PeerUp", "disconnected": "PeerDown"}


class PeerHooks:
    """One per daemon. `config` gives the conf that was applied last."""

    def __init__(self, config: Callable[[], TunnelConfig]) -> None:
        self.stopper = host.HookStopper()
        self.is_over = False
        """Whether the tunnel goes down: what happens from now on has no hook."""
        self._config = config
        self._waiting: deque[tuple[str, dict[str, str]]] = deque()
        self._has_news = trio.Event()
        self._left_out = 0
        self._running = trio.Lock()

    def handle_event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Have the hooks of an event run, if it has any."""
        if self.is_over or kind not in KINDS or not self._commands(KINDS[kind]):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._left_out += 1
            return
        self._waiting.append((KINDS[kind], self._environment(details)))
        self._has_news.set()

    async def run(self) -> None:
        """Run what is due until cancelled; a hook that runs is waited for."""
        while True:
            await self._has_news.wait()
            self._has_news = trio.Event()
            await self.run_waiting()

    async def run_waiting(self) -> None:
        """Run what is due now."""
        async with self._running:
            while self._waiting:
                kind, environment = self._waiting.popleft()
                await trio.to_thread.run_sync(self._run, kind, environment)
            if self._left_out:
                log.warning(
                    "%d peers connected or disconnected without their hooks: these take too long",
                    self._left_out,
                )
                self._left_out = 0

    def _run(self, kind: str, environment: dict[str, str]) -> None:
        config = self._config()
        call = partial(
            host.run_hooks,
            hide=redaction.hook_hider(config),
            limits=host.HookLimits(config.interface.options.hook_timeout, self.stopper),
            environment=environment,
        )
        try:
            call(kind, self._commands(kind), config.name, partial(log.info, "%s"))
        except host.HostError as error:
            log.warning("%s", error)

    def _commands(self, kind: str) -> tuple[str, ...]:
        interface: InterfaceConfig = self._config().interface
        options = interface.options
        return options.peer_up if kind == "PeerUp" else options.peer_down

    def _environment(self, details: Mapping[str, Any]) -> dict[str, str]:
        return {
            "TUNNEL_INTERFACE": self._config().name,
            "TUNNEL_PEER": details["peer"],
            "TUNNEL_PEER_NAME": details.get("name", ""),
            "TUNNEL_PEER_ENDPOINT": details["endpoint"] or "",
            "TUNNEL_PEER_REASON": details.get("reason", ""),
        }
