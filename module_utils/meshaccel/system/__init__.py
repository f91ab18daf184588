# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Small adapters to the operating system; each can be replaced in a test."""
