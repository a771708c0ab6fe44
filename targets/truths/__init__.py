"""What is known of a law, and the certified references that say it."""
