"""What an operator does to a whole service: check it, back it up, restore it. Each module runs as a process."""
