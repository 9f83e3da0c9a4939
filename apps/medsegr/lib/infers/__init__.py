"""Infer tasks on MONAI Label's contract."""
