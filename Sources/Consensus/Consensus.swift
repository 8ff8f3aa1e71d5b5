// Consensus: see README.md.
