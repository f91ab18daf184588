# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The follow daemon: has the node converge when devices, routes, nft rules or services change.

It only waits and starts the node's own command, a process each time: whatever
goes wrong in one ends with it, its memory with it, and it is always of the release
that is installed now. What it imports itself is little, since it lives as long as
the node does.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ... import lock
from ...paths import NodePaths
from ...system import netlink, route_netlink
from . import NAME

#: NETLINK_NETFILTER and the mask of NFNLGRP_NFTABLES: include/uapi/linux/netfilter/nfnetlink.h.
NETFILTER = 12
NFTABLES_EVENTS = 1 << 6
LISTING = "/proc/net/ip_vs"
#: Changes come in bursts: a pod is a device, its addresses and its routes.
SETTLE_SECONDS = 0.2
LOOK_SECONDS = 1.0
#: What nobody has asked for, looking and tending, takes at most so much of one CPU each.
SHARE_OF_CPU = 0.05
#: Between two runs there are so many times as long as one takes.
PAUSES_PER_RUN = 3
#: What no event tells, and flows that are over, are looked after so often; a run that is due for another
#: reason in the second half of that time does it as well.
TEND_SECONDS = 60.0
AGAIN_SECONDS = 5.0
RUN_SECONDS = 900.0
#: EX_TEMPFAIL of sysexits.h: another run holds the node.
BUSY = 75


def table_digest(path: str = LISTING) -> int:
    """Returns a digest of IPVS's table without what changes with every connection; 0 while there is none.

    Reads what ``ipvsadm -Ln`` shows: the kernel tells nobody when the table changes.
    """
    digest = 0
    try:
        with open(path, "rb") as stream:
            for line in stream:
                # Of a server without weight and counts of connections.
                words = line.rsplit(None, 3)[0] if line.startswith(b"  ->") else line
                digest = zlib.crc32(words, digest)
    except FileNotFoundError:
        return 0
    return digest


def cpu_of_runs() -> float:
    """Returns the seconds of CPU that all runs have taken until now."""
    times = os.times()
    return times.children_user + times.children_system


@dataclass
class Follower:
    """Decides when to run. Times are of time.monotonic().

    ``node_lock`` is the file of the lock that a run needs.
    """

    command: Sequence[str]
    node_lock: str
    digest: int = 0
    next_look: float = 0.0
    next_tend: float = 0.0
    #: When to run, however often something changes meanwhile; infinity: not at all.
    next_run: float = field(default=0.0)
    earliest_run: float = 0.0

    def changed(self, now: float) -> None:
        """Something happened: run once it has settled, and not too often."""
        self.next_run = min(self.next_run, max(now + SETTLE_SECONDS, self.earliest_run))

    def waits(self, now: float) -> float:
        """Returns for how many seconds there is nothing to do unless something happens."""
        return max(0.0, min(self.next_look, self.next_run, self.next_tend) - now)

    def look(self, now: float) -> None:
        """Looks at IPVS's table when it is time to."""
        if now < self.next_look:
            return
        digest = table_digest()
        self.next_look = now + max(LOOK_SECONDS, (time.monotonic() - now) / SHARE_OF_CPU)
        if digest != self.digest:
            self.digest = digest
            self.changed(now)

    def run_if_due(self, now: float) -> None:
        """Runs the command when it is time to, and the node is nobody else's."""
        if now < min(self.next_run, self.next_tend):
            return
        # A process that would only find that out costs as much as a run: on a slow node a CPU for minutes.
        if lock.is_held(self.node_lock):
            self.next_run = now + LOOK_SECONDS
            self.next_tend = max(self.next_tend, self.next_run)
            return
        tend = now >= self.next_tend - TEND_SECONDS / 2
        cpu_before = cpu_of_runs()
        code = self.run(tend=tend)
        after = time.monotonic()
        self.earliest_run = after + (after - now) * PAUSES_PER_RUN
        if code != 0:
            again = LOOK_SECONDS if code == BUSY else AGAIN_SECONDS
            self.next_run = max(after + again, self.earliest_run)
            self.next_tend = max(self.next_tend, self.next_run)
            return
        self.next_run = float("inf")
        if tend:
            self.next_tend = after + max(TEND_SECONDS, (cpu_of_runs() - cpu_before) / SHARE_OF_CPU)

    def run(self, *, tend: bool) -> int:
        """Converges in a process of its own; returns its exit code. It tells the journal what is wrong."""
        arguments = [*self.command, "follow", NAME, "--once", *(["--tend"] if tend else [])]
        try:
            return subprocess.run(arguments, check=False, timeout=RUN_SECONDS).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"meshaccel: {error}", file=sys.stderr, flush=True)
            return 1


def follow(paths: NodePaths) -> int:
    """Follows until it is ended; raises Busy when another daemon does so already."""
    follower = Follower([paths.command], paths.lock)
    with termination_as_exit(), lock.held(paths.follower, "the follow daemon", 0.0):
        with route_netlink.Events() as routes, netlink.Events(NETFILTER, NFTABLES_EVENTS) as nft:
            while True:
                step(follower, (routes, nft))


@contextmanager
def termination_as_exit() -> Iterator[None]:
    """Has SIGTERM, by which systemd ends a service, leave the block as SystemExit: its lock file goes."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def step(follower: Follower, events: Sequence[netlink.Events]) -> None:
    """Waits for something to do, and does it. Errors are told and tried again."""
    readable, _, _ = select.select(events, (), (), follower.waits(time.monotonic()))
    try:
        for source in readable:
            if source.wait(0):
                follower.changed(time.monotonic())
        follower.look(time.monotonic())
    except OSError as error:
        print(f"meshaccel: {error}", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)
    follower.run_if_due(time.monotonic())
