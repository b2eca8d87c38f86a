"""respool's tests, and the throw-away servers and fault proxy that the demo and the benchmarks share with them."""
