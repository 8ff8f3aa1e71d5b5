// Transport: see README.md.
