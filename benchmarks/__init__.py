"""Figures of the runtime, each beside its peer or limit in the same run. Run with `python -m benchmarks`."""
