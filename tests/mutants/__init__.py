"""Bugs sown into the kernel on purpose, to see whether the tests notice. ``python -m tests.mutants`` runs them all."""
