module zenvoy.dev/testcluster/certmanager

go 1.26.0

// Nothing is built: its deploy/crds holds cert-manager's own definitions.
require github.com/cert-manager/cert-manager v1.21.2
