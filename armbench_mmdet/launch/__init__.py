"""From a config file to a run: what ``tools/train.py`` and ``tools/test.py`` call."""
