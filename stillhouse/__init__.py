"""Stillhouse: distillation as a service. The contract, the client and the command line."""

__version__ = "0.1.0"
