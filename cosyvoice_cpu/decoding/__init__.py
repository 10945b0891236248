"""Between the networks: sampling, the flow solver, fixed noise, length guard. NumPy only."""
