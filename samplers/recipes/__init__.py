"""How a problem becomes the process that a loss trains."""
