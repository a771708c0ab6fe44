"""How often stated intervals of log Z hold it, before and now."""
