"""One TaskConfig per model."""
