"""The probability flow of a control: an ODE whose draws have a density."""
