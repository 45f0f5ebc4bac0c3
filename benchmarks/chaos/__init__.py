"""Faults, one kind after the other, on a service of real processes, and whether every job ended as it should."""
