"""Guests with kernels of their own: images built from Debian's packages, and QEMU to run them."""
