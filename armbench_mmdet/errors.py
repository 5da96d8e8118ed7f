"""The exceptions for bad input; ``armbench_cli.run_tool`` is what a command line makes of them."""


class InputError(ValueError):
    """Something the user gave is wrong; the message names the file, the value and the remedy."""


class UnreadableImageError(InputError):
    """An image file is missing, damaged, or not of the annotated size."""
