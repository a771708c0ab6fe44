"""One cell: training, drawing and measuring within an enforced budget."""
