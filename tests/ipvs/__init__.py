"""Tests of IPVS and of what replaces parts of it. They run in guests: ./run test-vm-ipvs."""
