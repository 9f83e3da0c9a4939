"""Training: sampling, augmentation, the loop."""
