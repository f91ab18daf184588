# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Relays: two servers whose accepted connections the kernel joins.

An object of its own beside the accelerator's, on the accelerator's own switch
and policies: where those are off, a relay is.
"""
