"""Machines of the Vagrantfile, for the same scenarios, and boxes made of the images of tests/vm."""
