"""The conformance kit, and the mutants that it must catch."""
