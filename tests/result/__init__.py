"""What comes back, how it shows itself, the page about it."""
