"""tiltbench: samplers of tilted densities, compared at equal and enforced cost."""
