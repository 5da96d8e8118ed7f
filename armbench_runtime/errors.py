"""The exceptions for bad input."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the value and the remedy."""


class UnreadableImageError(InputError):
    """An image file is missing, damaged, or not of the annotated size."""
