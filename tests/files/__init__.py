"""Tests of `nmf_xp.files`: what hostile files, odd tables and odd pictures come to."""
