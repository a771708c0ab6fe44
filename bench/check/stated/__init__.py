"""What a target states beside its log rho, held against autograd."""
