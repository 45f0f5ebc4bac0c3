"""What a checkpoint's file has in common for those who write, keep and read it."""

BEST_PREFIX = "best/"
"""Of the tensors of the best student so far; what follows is their name in model.safetensors. Missing before a student
has begun to learn."""
