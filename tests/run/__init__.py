"""A run: its checks, its end, its checkpoints, stacks."""
