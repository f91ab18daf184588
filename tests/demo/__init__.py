"""The demonstration: a sidecar mesh on this machine, measured, accelerated, measured again, taken down."""
