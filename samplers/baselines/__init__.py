"""Fine-tuning without training: resampling, best of n, guidance."""
