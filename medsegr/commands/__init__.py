"""The commands of `medsegr`, one module each. Importing them is cheap; torch and the rest load when a command runs."""
