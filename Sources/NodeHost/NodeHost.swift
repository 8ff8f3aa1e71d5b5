// NodeHost: see README.md.
