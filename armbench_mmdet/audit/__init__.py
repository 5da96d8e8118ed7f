"""The audit of a data set, for ``tools/check_data.py``."""
