"""`select_rank`."""
