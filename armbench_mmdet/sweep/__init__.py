"""The sweep: a search space, trials as configuration files, and the workers that train them."""
