# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Compiles one text by bcc. Run alone, by the Python that bcc is installed for.

Reads {"text", "flags", "programs"} as JSON, writes {program: instructions in
hexadecimal digits}. In a process of its own, since the compiler keeps some 200 MB
and prints what it does not like to standard error.
"""

from __future__ import annotations

import importlib
import json
import sys

#: The exit status when there is no bcc.
MISSING = 3


def main() -> int:
    """Compiles what standard input asks for."""
    request = json.load(sys.stdin)
    try:
        bcc = importlib.import_module("bcc")
    except ImportError as error:
        print(error, file=sys.stderr)
        return MISSING
    compiled = bcc.BPF(text=request["text"], cflags=request["flags"])
    json.dump({name: compiled.dump_func(name).hex() for name in request["programs"]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
