"""Images of digits, and the networks trained on them."""
