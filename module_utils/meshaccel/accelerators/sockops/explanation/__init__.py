# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a connection goes, or does not go, from socket to socket."""
