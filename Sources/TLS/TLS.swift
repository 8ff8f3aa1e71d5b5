// TLS: see README.md.
