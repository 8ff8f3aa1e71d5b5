// Node: see README.md.
