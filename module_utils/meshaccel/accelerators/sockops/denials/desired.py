# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What an operator wishes to be denied: parsed and validated, nothing touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....checks import Variables
from ....model import Json
from .executables import DEFAULT_EXECUTABLES, parse_executable
from .networks import DeniedNetwork, flatten, parse_network
from .nft_sets import NftSet, parse_nft_set

NETWORKS = "denied_networks"
NFT_SETS = "denied_nft_sets"
EXECUTABLES = "denied_executables"
KEYS = frozenset({NETWORKS, NFT_SETS, EXECUTABLES})


@dataclass(frozen=True)
class Denials:
    """The three kinds of wishes."""

    networks: tuple[DeniedNetwork, ...] = ()
    nft_sets: tuple[NftSet, ...] = ()
    executables: tuple[str, ...] = DEFAULT_EXECUTABLES

    def as_dict(self) -> dict[str, Json]:
        """Returns the wishes in the words of the role, to be kept on the node."""
        return {
            NETWORKS: [network.as_dict() for network in self.networks],
            NFT_SETS: [entry.as_dict() for entry in self.nft_sets],
            EXECUTABLES: list(self.executables),
        }


def parse(raw: Mapping[str, Json]) -> Denials:
    """Parses role variables, or what as_dict() returned; raises InvalidInput."""
    variables = Variables(raw, "sockops_")
    networks = tuple(map(parse_network, variables.listed(NETWORKS)))
    # Whether the table has room for them is to be said before anything is done.
    flatten(networks)
    executables = DEFAULT_EXECUTABLES
    if raw.get(EXECUTABLES) is not None:
        executables = tuple(map(parse_executable, variables.listed(EXECUTABLES)))
    return Denials(networks, tuple(map(parse_nft_set, variables.listed(NFT_SETS))), executables)
