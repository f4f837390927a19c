"""A small network of its own: each broker behind a cable that can be pulled.

The whole suite runs in a network and mount namespace that ends with it (`unshare`, see `__main__`): nothing of it is seen
from outside. Pulling a cable drops packets, so that both sides wait, as they do when a switch fails.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_GATEWAY = "10.213.0.1"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Network:
    """A switch with one host behind each cable; `hosts` by number from 1."""

    def __init__(self, hosts: int) -> None:
        self._hosts = range(1, hosts + 1)
        Path("/run/netns").mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "addr", "add", f"{_GATEWAY}/24", "dev", "switch")
        _run("ip", "link", "set", "switch", "up")
        for host in self._hosts:
            self._plug(host)

    def _plug(self, host: int) -> None:
        name, cable = self._name(host), f"cable{host}"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", cable, "master", "switch", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")

    def address(self, host: int) -> str:
        return f"10.213.0.{10 + host}"

    def within(self, host: int) -> tuple[str, ...]:
        """The command that runs another on this host."""
        return ("ip", "netns", "exec", self._name(host))

    def cut(self, host: int) -> None:
        _run("ip", "link", "set", f"cable{host}", "down")

    def heal(self, host: int) -> None:
        _run("ip", "link", "set", f"cable{host}", "up")

    def _name(self, host: int) -> str:
        return f"host{host}"
