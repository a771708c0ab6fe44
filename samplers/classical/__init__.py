"""Methods that train nothing: Langevin, Hamiltonian, annealing, tempering."""
