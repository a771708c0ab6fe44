"""What is run: specs, budgets, cells, suites and the plug-ins they name."""
