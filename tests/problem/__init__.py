"""From the user's arguments to a problem: checks, starts, terms, losses."""
