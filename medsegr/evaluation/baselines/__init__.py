"""Baselines of the model in one harness: what `benchmarks/baselines.py` trains, asks and compares."""
