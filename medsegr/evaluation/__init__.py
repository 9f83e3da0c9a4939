"""Measuring: metrics and the free-generation harness."""
