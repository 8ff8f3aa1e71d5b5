// Storage: see README.md.
