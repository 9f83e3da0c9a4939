"""One TrainTask per model."""
