"""What the programs that XLA compiled send between devices, read from their optimised text.

XLA writes the text of all that it compiles into a folder when `virtual_devices` are in the environment as JAX starts.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast|ragged-all-to-all"
COLLECTIVE = re.compile(rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{KINDS})(?:-start)?\((?P<rest>.*)")
COMPUTATION = re.compile(r"^(?:ENTRY )?%(?P<name>\S+) \(.*\{$")
LOOP = re.compile(r"\bwhile\(.*body=%(?P<body>[^\s,]+)")
BITS = re.compile(r"\d+")


class Collective(NamedTuple):
    """One exchange between devices."""

    kind: str
    size: int  # bytes of its result on each device
    devices: int  # that take part in it together
    times: int  # that the program runs it, in an iteration of the loop that has no known end

    @property
    def sent(self) -> float:
        """Bytes that a device sends round a ring, for an all-reduce."""
        assert self.kind == "all-reduce"
        return 2 * (1 - 1 / self.devices) * self.size * self.times


def virtual_devices(devices: int, folder: Path) -> dict[str, str]:
    """The environment of a process that has so many virtual CPU devices and writes the text of all its programs.

    NPROC is XLA's number of threads. By default there is one for each device: all but one may hold a collective that
    waits for the last device, and the last thread starts the next operation, which waits for the collective.
    """
    flags = f"--xla_force_host_platform_device_count={devices} --xla_dump_to={folder} --xla_dump_hlo_as_text"
    return {"XLA_FLAGS": flags, "NPROC": str(4 * devices), "JAX_PLATFORMS": "cpu"}


def programs(folder: Path, name: str = "") -> dict[str, list[Collective]]:
    """The collectives of each compiled program in the folder whose name ends with `name`."""
    found = {}
    for path in sorted(folder.glob("*after_optimizations.txt")):
        program = path.name.split(".")[1]
        if program.endswith(name):
            found[path.name] = collectives(path.read_text(encoding="utf-8"))
    return found


def largest_memory(folder: Path) -> int:
    """Bytes that the program in the folder which needs most has on a device, its arguments included."""
    reports = (path.read_text(encoding="utf-8") for path in folder.glob("*after_optimizations-memory-usage-report.txt"))
    return max(int(size) for report in reports for size in re.findall(r"^Total bytes: (\d+)", report, re.MULTILINE))


def collectives(text: str) -> list[Collective]:
    """The collectives of one program."""
    inside = ""
    found: list[tuple[str, Collective]] = []
    loops: dict[str, tuple[str, int]] = {}  # of a loop's body: where the loop stands, and how often it runs
    for line in text.splitlines():
        if begins := COMPUTATION.match(line):
            inside = begins["name"]
        if loop := LOOP.search(line):
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            loops[loop["body"]] = (inside, int(count[1]) if count else 1)
        if match := COLLECTIVE.search(line):
            found.append((inside, Collective(match["kind"], _size(match["result"]), _devices(match["rest"]), 1)))

    def times(computation: str) -> int:
        outside, count = loops.get(computation, ("", 1))
        return count * times(outside) if outside else count

    return [collective._replace(times=times(computation)) for computation, collective in found]


def _size(result: str) -> int:
    """Bytes of a result such as f32[4,128]{1,0}, or of a tuple of them."""
    total = 0
    for dtype, lengths in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", result):
        bits = BITS.search(dtype)
        total += math.prod(map(int, filter(None, lengths.split(",")))) * (int(bits[0]) // 8 if bits else 1)
    return total


def _devices(rest: str) -> int:
    """How many devices form a group, in any of the three ways in which XLA writes them."""
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=mesh\[(.*?)\].*?\{('.*?')\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    msg = f"no group of devices is known in {rest}"
    raise ValueError(msg)
