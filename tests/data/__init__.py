"""V behind its seam: one file a kind of data."""
