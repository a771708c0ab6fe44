"""How it is sampled: losses, networks, processes to train, classical methods."""
