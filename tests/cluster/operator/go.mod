module zenvoy.dev/testcluster/operator

go 1.24.0

// Nothing is built: its example/prometheus-operator-crd holds the operator's own definitions.
require github.com/prometheus-operator/prometheus-operator v0.85.0
