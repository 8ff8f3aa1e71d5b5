// EtcdAPI: see README.md.
