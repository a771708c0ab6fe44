"""Training the small networks that ship, and wrapping large ones as bases."""
