"""What finished runs have trained: named, loaded, drawn from again, handed on."""
