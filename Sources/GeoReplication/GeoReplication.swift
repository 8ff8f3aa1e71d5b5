// GeoReplication: see README.md.
