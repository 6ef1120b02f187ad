"""A run: from a start, by iterations, to what is returned of them."""
