// SLAProbe: see README.md.
