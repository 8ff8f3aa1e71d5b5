// Simulator: see README.md.
