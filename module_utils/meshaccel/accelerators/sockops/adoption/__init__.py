# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Adoption: connections that were open before sockops was are taken over live."""
