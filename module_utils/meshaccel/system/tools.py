# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of the node that have no library: fixed words, a fixed PATH, a time limit."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import MeshaccelError, Unsupported

ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}
SECONDS = 20.0


class ToolFailed(MeshaccelError):
    """A program of the node ended with an error; ``found`` is what it printed."""


def run(command: Sequence[str], *, package: str, standard_input: str = "") -> str:
    """Runs a program to its end and returns its output.

    Raises Unsupported when it is not there (``package`` is what has it),
    ToolFailed when it ends with an error or not within SECONDS.
    """
    # Only where a program is run: the import costs every run on every node otherwise.
    import subprocess

    words = " ".join(command)
    try:
        done = subprocess.run(
            command,
            input=standard_input,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        raise Unsupported(
            wanted=f"to run {words}", found=str(error), remedy=f"install {package} on the node"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(
            wanted=f"{words} to end within {SECONDS:g} s",
            found="it has not, and was ended",
            remedy="see what it waits for, then run again",
        ) from error
    if done.returncode != 0:
        printed = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ToolFailed(wanted=words, found=printed, remedy=f"see the manual page of {command[0]}")
    return done.stdout
