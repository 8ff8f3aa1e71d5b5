import EtcdFacade

/// What `polder version`, `/version` and `Status` say.
package enum PolderVersion {
    package static let text = "0.1.0"
    /// The etcd whose API is served: Kubernetes trusts progress requests only from known ones.
    package static var etcd: String { ServedVersions().etcd }
}
