// EtcdFacade: see README.md.
