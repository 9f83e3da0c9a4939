"""The parts of `learning_loop.py`: streams of images, what clinicians do wrong, sites that learn, and what is measured."""
