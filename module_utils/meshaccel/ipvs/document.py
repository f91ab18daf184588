# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What is kept of the wish on the node: for restore at boot, and to know which services are ours."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..errors import InvalidInput
from ..model import Json
from .desired import Desired, parse
from .entries import entry_key, key_entry, service_entry
from .model import ServiceKey

WISH = ("state", "services", "purge", "drain_seconds")
NO_KEYS: frozenset[ServiceKey] = frozenset()


@dataclass(frozen=True)
class Kept:
    """Whose the services are that a document names.

    ``listed`` are those of the wish; of these ``adopted`` were there before they were
    listed, so somebody else made them. ``leaving`` were ours and are being removed.
    """

    listed: frozenset[ServiceKey] = NO_KEYS
    adopted: frozenset[ServiceKey] = NO_KEYS
    leaving: frozenset[ServiceKey] = NO_KEYS
    #: Those of which a server had a threshold, which the node's listing does not show.
    detailed: frozenset[ServiceKey] = NO_KEYS

    @property
    def ours(self) -> frozenset[ServiceKey]:
        """Services that are there since we made them."""
        return (self.listed - self.adopted) | self.leaving


def write(desired: Desired, adopted: Collection[ServiceKey], leaving: Collection[ServiceKey]) -> bytes:
    """Returns the document of a wish, one service a line."""
    settings = {"state": "present", "purge": desired.purge, "drain_seconds": desired.drain_seconds}
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in settings.items()]
    fields.append(f'"adopted": {lines(key_entry(key) for key in sorted(adopted, key=str))}')
    fields.append(f'"leaving": {lines(key_entry(key) for key in sorted(leaving, key=str))}')
    fields.append(f'"services": {lines(map(service_entry, desired.services))}')
    return ("{\n" + ",\n".join(fields) + "\n}\n").encode()


def lines(entries: Iterable[Json]) -> str:
    """Returns a JSON list with one entry a line."""
    return "[" + ",".join(f"\n{json.dumps(entry)}" for entry in entries) + "]"


def read_wish(content: bytes, path: str) -> Desired:
    """Returns the wish of a document; raises InvalidInput when it is damaged."""
    raw = load(content, path)
    try:
        return parse({key: raw[key] for key in WISH})
    except (KeyError, InvalidInput) as error:
        raise damaged(path, error) from error


def read_kept(content: bytes, path: str) -> Kept:
    """Returns whose services are, without validating what is wished of them; raises InvalidInput."""
    raw = load(content, path)
    try:
        listed = {entry_key(entry): entry for entry in raw["services"]}
        return Kept(
            frozenset(listed),
            frozenset(map(entry_key, raw["adopted"])),
            frozenset(map(entry_key, raw["leaving"])),
            frozenset(key for key, entry in listed.items() if has_threshold(entry)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error


def has_threshold(entry: Json) -> bool:
    """True when a server of an entry has a threshold."""
    return any(isinstance(server, dict) and server.get("upper_threshold") for server in entry["servers"])


def load(content: bytes, path: str) -> Json:
    """Returns what a document has; raises InvalidInput when it is none."""
    try:
        raw = json.loads(content)
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(raw, dict):
        raise damaged(path, type(raw).__name__)
    return raw


def damaged(path: str, cause: object) -> InvalidInput:
    """Builds the error for a document that cannot be read."""
    return InvalidInput(
        wanted=f"in {path} which services of the node are ours",
        found=f"a file that was damaged or edited by hand ({cause!r})",
        remedy="remove the file and run the playbook; listed services are kept, and those that are not "
        "in the list any more have to be removed by hand (ipvsadm -D)",
    )
