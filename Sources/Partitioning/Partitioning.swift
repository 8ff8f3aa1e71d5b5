// Partitioning: see README.md.
