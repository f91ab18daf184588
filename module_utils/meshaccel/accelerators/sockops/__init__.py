# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""sockops: TCP between sockets of one node goes socket to socket.

Data flows one way: desired -> observe -> plan (pure) -> handlers.
"""

NAME = "sockops"
