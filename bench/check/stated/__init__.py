"""What a target states beside its log rho, compared with autograd."""
