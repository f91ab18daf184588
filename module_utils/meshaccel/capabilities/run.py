# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Asks the node and turns what happened into an answer."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence

from ..bpf.libbpf import BpfError
from ..errors import InvalidInput, Unsupported
from ..model import Answer, Capability
from ..paths import NodePaths
from .catalogue import NAMES, PROBES, Probe
from .session import Lacking, Session, Undetermined

#: The node was short of something, or this process may not ask: no word on the feature.
SAYS_NOTHING = frozenset(
    {
        errno.EPERM,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EINTR,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EROFS,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
    }
)


def probe(names: Collection[str] = NAMES, paths: NodePaths | None = None) -> dict[str, Capability]:
    """Asks for these capabilities, in the catalogue's order.

    Needs root for an answer beyond ``unknown``. Changes nothing that outlives the
    call. Raises InvalidInput for a name that is none.
    """
    check_names(names)
    with Session(paths or NodePaths()) as session:
        return {asked.name: ask(asked, session) for asked in PROBES if asked.name in names}


def check_names(names: Collection[str], known: Sequence[str] = NAMES) -> None:
    """Raises InvalidInput unless every name is a known one."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InvalidInput(
            wanted="names among " + ", ".join(known), found=", ".join(unknown), remedy="check the spelling"
        )


def ask(asked: Probe, session: Session) -> Capability:
    """Runs one probe."""
    try:
        asked.check(session)
    except Lacking as reason:
        return Capability(asked.name, Answer.NO, str(reason), asked.lowest_kernel)
    except Undetermined as reason:
        return Capability(asked.name, Answer.UNKNOWN, str(reason), asked.lowest_kernel)
    except Unsupported as error:
        # The tool of the probe is missing, not what it asks for.
        return Capability(asked.name, Answer.UNKNOWN, f"{error.found}; {error.remedy}", asked.lowest_kernel)
    except OSError as error:
        return Capability(asked.name, answer_of(error), reason_of(error), asked.lowest_kernel)
    return Capability(asked.name, Answer.YES, lowest_kernel=asked.lowest_kernel)


def answer_of(error: OSError) -> Answer:
    """Returns what a failed call says: that the feature is missing, or nothing.

    A timeout of a socket carries no error number.
    """
    if error.errno is None or error.errno in SAYS_NOTHING:
        return Answer.UNKNOWN
    return Answer.NO


def reason_of(error: OSError) -> str:
    """Returns a failed call for a reader: what failed, why, and the verifier's last word."""
    if not isinstance(error, BpfError):
        return str(error)
    return " | ".join([str(error.strerror), *error.messages])
