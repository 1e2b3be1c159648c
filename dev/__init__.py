"""What is not deployed: the demo, the sandbox API, the benchmarks, and what builds the package that is deployed."""
