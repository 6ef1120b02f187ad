"""What is around the package: documentation, examples, benchmarks, lints, CI's scripts."""
