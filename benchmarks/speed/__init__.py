"""How long a job takes, and how much memory. See `__main__`."""
