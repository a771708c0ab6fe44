"""Which paths training sees besides those of the control as it is."""
