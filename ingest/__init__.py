"""Readers of uploaded files: from bytes nobody trusts to one stored dataset, or to a refusal that says what to mend.

Runs as a process of its own, `python -m ingest REQUEST.json`, which the service starts with limits and without secrets.
"""
