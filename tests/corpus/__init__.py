"""Real matrices, and what must hold for every factorization of them.

    python -m tests.corpus --minutes 60 --processes 2

makes all runs, or as many as there is time for, and says what they violate.
"""
