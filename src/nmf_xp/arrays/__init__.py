"""What arrays are: the libraries they come from, where they lie, and what computes with them."""
