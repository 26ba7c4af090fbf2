{{- define "zenvoy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Prefix of all names: the release's name if it contains zenvoy. */}}
{{- define "zenvoy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "zenvoy.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "zenvoy.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "zenvoy.reconciler" -}}{{ include "zenvoy.fullname" . }}-reconciler{{- end -}}
{{- define "zenvoy.proxy" -}}{{ include "zenvoy.fullname" . }}-proxy{{- end -}}

{{/* Immutable labels. Arguments: {root: $, component: …} */}}
{{- define "zenvoy.selector" -}}
app.kubernetes.io/name: {{ include "zenvoy.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end -}}

{{/* Labels. Arguments: {root, component}, and labels of the object itself. */}}
{{- define "zenvoy.labels" -}}
{{ include "zenvoy.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with include "zenvoy.addedLabels" (dict "root" .root "labels" .labels) }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Labels of pods. They exclude the chart's version, so that a new version alone causes no rollout. */}}
{{- define "zenvoy.podLabels" -}}
{{ include "zenvoy.selector" . }}
{{- with include "zenvoy.addedLabels" (dict "root" .root "labels" .values.podLabels) }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Annotations of pods; the values take precedence. Without safe-to-evict, the cluster autoscaler keeps each node that runs a
pod with an emptyDir volume. Arguments: {container, values} */}}
{{- define "zenvoy.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" .container "cluster-autoscaler.kubernetes.io/safe-to-evict" "true" -}}
{{- merge (dict) (.values.podAnnotations | default dict) $own | toYaml -}}
{{- end -}}

{{/* Common labels and own ones, which take precedence: YAML allows a key only once. */}}
{{- define "zenvoy.addedLabels" -}}
{{- with merge (dict) (.labels | default dict) (.root.Values.commonLabels | default dict) }}
{{- toYaml . }}
{{- end }}
{{- end -}}

{{/* Image reference. Arguments: {image: …, tag: …} */}}
{{- define "zenvoy.image" -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "zenvoy.reconcilerServiceAccount" -}}
{{- .Values.reconciler.serviceAccount.name | default (ternary (include "zenvoy.reconciler" .) "default" .Values.reconciler.serviceAccount.create) -}}
{{- end -}}

{{- define "zenvoy.proxyServiceAccount" -}}
{{- .Values.proxy.serviceAccount.name | default (ternary (include "zenvoy.proxy" .) "default" .Values.proxy.serviceAccount.create) -}}
{{- end -}}

{{/* DNS name of the reconcilers, as in certificates. */}}
{{- define "zenvoy.reconcilerHost" -}}
{{ include "zenvoy.reconciler" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Secrets that the reconcilers write, separated by a space: the authority's, and the proxy pods'. */}}
{{- define "zenvoy.issuedSecrets" -}}
{{ include "zenvoy.fullname" . }}-self-issued-ca{{ if .Values.proxy.enabled }} {{ include "zenvoy.proxyTlsSecret" . }}{{ end }}
{{- end -}}

{{- define "zenvoy.reconcilerTlsSecret" -}}
{{- if eq .Values.mtls.source "existing" -}}{{ required "mtls.existing.reconcilerSecret: required; the name of a Secret with tls.crt, tls.key, and ca.crt" .Values.mtls.existing.reconcilerSecret }}{{- else -}}{{ include "zenvoy.reconciler" . }}-tls{{- end -}}
{{- end -}}

{{- define "zenvoy.proxyTlsSecret" -}}
{{- if eq .Values.mtls.source "existing" -}}{{ required "mtls.existing.proxySecret: required; the name of a Secret with tls.crt, tls.key, and ca.crt" .Values.mtls.existing.proxySecret }}{{- else if eq .Values.mtls.source "self-issued" -}}{{ include "zenvoy.proxy" . }}-self-issued{{- else -}}{{ include "zenvoy.proxy" . }}-tls{{- end -}}
{{- end -}}

{{- define "zenvoy.tlsArgs" -}}
- --tls-cert=/etc/zenvoy/tls/tls.crt
- --tls-key=/etc/zenvoy/tls/tls.key
- --tls-ca=/etc/zenvoy/tls/ca.crt
{{- end -}}

{{/* The pod starts once the Secret has these keys. */}}
{{- define "zenvoy.tlsVolume" -}}
- name: tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}, {key: ca.crt, path: ca.crt}]
{{- end -}}

{{- define "zenvoy.tlsMount" -}}
- {name: tls, mountPath: /etc/zenvoy/tls, readOnly: true}
{{- end -}}

{{/* Security context without any privileges. */}}
{{- define "zenvoy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Security context for diverting ports and accepting diverted connections. Added capabilities work only for root. */}}
{{- define "zenvoy.tproxySecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: false
runAsUser: 0
capabilities: {drop: [ALL], add: [NET_ADMIN]}
{{- end -}}

{{/* Security context for containers that share a Unix socket with the holder in holdMode tproxy: the same user, without
capabilities. */}}
{{- define "zenvoy.rootSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: false
runAsUser: 0
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "zenvoy.podSecurity" -}}
seccompProfile: {type: RuntimeDefault}
{{- range $name, $id := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $id) }}
{{ $name }}: {{ int64 $id }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Checks that a schema cannot express: values that depend on each other. */}}
{{- define "zenvoy.checkValues" -}}
{{- $ranges := dict "holdPorts" .Values.holdPorts "capture.ports" .Values.capture.ports "reconciler.statsPorts" .Values.reconciler.statsPorts }}
{{- range $i, $rule := .Values.hostPolicy }}
{{- range $j, $range := $rule.ports }}{{ $_ := set $ranges (printf "hostPolicy[%d].ports[%d]" $i $j) $range }}{{ end }}
{{- end }}
{{- range $place, $range := $ranges }}
{{- $ports := splitList "-" $range }}
{{- if gt (int (first $ports)) (int (last $ports)) }}{{ fail (printf "%s: %s ends before it begins; swap the ports" $place $range) }}{{ end }}
{{- end }}
{{- $drain := .Values.proxy.drain }}
{{- if gt (int $drain.settleSeconds) (int $drain.seconds) }}
{{- fail (printf "proxy.drain.settleSeconds: %d exceeds proxy.drain.seconds, %d; lower it, or raise seconds" (int $drain.settleSeconds) (int $drain.seconds)) }}
{{- end }}
{{- $names := list }}
{{- $ports := list (int .Values.proxy.http.port) (int .Values.proxy.tls.port) }}
{{- $services := list (int .Values.proxy.http.servicePort) (int .Values.proxy.tls.servicePort) }}
{{- $nodes := list .Values.proxy.http.nodePort .Values.proxy.tls.nodePort }}
{{- range .Values.proxy.tcp }}
{{- $names = append $names .name }}
{{- $ports = append $ports (int .port) }}
{{- $services = append $services (int (.servicePort | default .port)) }}
{{- $nodes = append $nodes .nodePort }}
{{- end }}
{{- if ne (len $names) (len (uniq $names)) }}{{ fail "proxy.tcp: two ports have the same name; choose another name" }}{{ end }}
{{- if ne (len $ports) (len (uniq $ports)) }}{{ fail "proxy: http.port, tls.port, and the ports in tcp must differ" }}{{ end }}
{{- if ne (len $services) (len (uniq $services)) }}{{ fail "proxy: the service ports of http, tls, and tcp must differ" }}{{ end }}
{{- $nodes = compact $nodes }}
{{- if ne (len $nodes) (len (uniq $nodes)) }}{{ fail "proxy: the node ports of http, tls, and tcp must differ" }}{{ end }}
{{- include "zenvoy.checkName" . }}
{{- include "zenvoy.checkAlone" . }}
{{- include "zenvoy.checkPortRanges" (dict "values" .Values "ports" $ports) }}
{{- include "zenvoy.checkService" (dict "service" .Values.proxy.service "kind" .Values.proxy.kind "nodes" $nodes) }}
{{- $parts := dict "reconciler" .Values.reconciler "proxy.envoy" .Values.proxy.envoy "proxy.holder" .Values.proxy.holder "proxy.keeper" .Values.proxy.keeper }}
{{- range $part, $values := $parts }}{{ include "zenvoy.checkResources" (dict "part" $part "resources" ($values.resources | default dict)) }}{{ end }}
{{- include "zenvoy.checkDurations" . }}
{{- include "zenvoy.checkVersion" . }}
{{- end -}}

{{- define "zenvoy.checkName" -}}
{{- $name := include "zenvoy.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "the release name: %s cannot begin the name of a Service; set fullnameOverride to a name that begins with a letter, and has only a-z, 0-9, and -" $name) }}
{{- end }}
{{- end -}}

{{/* Two releases in one namespace would share the Lease of their leaders. `helm template` has no cluster to look at. */}}
{{- define "zenvoy.checkAlone" -}}
{{- range (lookup "v1" "Service" .Release.Namespace "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- $release := get $labels "app.kubernetes.io/instance" }}
{{- if and (hasPrefix "zenvoy-" (get $labels "helm.sh/chart")) (eq (get $labels "app.kubernetes.io/component") "reconciler") (ne $release $.Release.Name) }}
{{- fail (printf "namespace %s has the release %s of zenvoy already; upgrade that one, or install this one in another namespace, each with its own namespaces" $.Release.Namespace $release) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* In holdMode tproxy, connections to the pod's own ports would be diverted too; captured Services get ports of their own. */}}
{{- define "zenvoy.checkPortRanges" -}}
{{- $values := .values }}
{{- $ranges := dict }}
{{- if eq $values.holdMode "tproxy" }}{{ $_ := set $ranges "holdPorts" $values.holdPorts }}{{ end }}
{{- if $values.capture.enabled }}{{ $_ := set $ranges "capture.ports" $values.capture.ports }}{{ end }}
{{- $ports := concat .ports (list 9901 9902 18001 18081) }}
{{- range $place, $range := $ranges }}
{{- $ends := splitList "-" $range }}
{{- $first := int (first $ends) }}
{{- $last := int (last $ends) }}
{{- if eq $first $last }}{{ fail (printf "%s: %s is one port; each service needs one, so use a range" $place $range) }}{{ end }}
{{- range $ports }}
{{- if and (ge . $first) (le . $last) }}
{{- fail (printf "%s: %s has port %d, which proxy pods use; choose another range, or another port" $place $range .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq (len $ranges) 2 }}
{{- $hold := splitList "-" $values.holdPorts }}
{{- $capture := splitList "-" $values.capture.ports }}
{{- if and (le (int (first $hold)) (int (last $capture))) (le (int (first $capture)) (int (last $hold))) }}
{{- fail (printf "capture.ports: %s overlaps holdPorts, %s; choose another range" $values.capture.ports $values.holdPorts) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "zenvoy.checkService" -}}
{{- $type := .service.type }}
{{- $wrong := dict }}
{{- if eq $type "ClusterIP" }}
{{- if .nodes }}{{ $_ := set $wrong "nodePort" "NodePort or LoadBalancer" }}{{ end }}
{{- if .service.externalTrafficPolicy }}{{ $_ := set $wrong "externalTrafficPolicy" "NodePort or LoadBalancer" }}{{ end }}
{{- end }}
{{- if ne $type "LoadBalancer" }}
{{- if .service.loadBalancerClass }}{{ $_ := set $wrong "loadBalancerClass" "LoadBalancer" }}{{ end }}
{{- if .service.loadBalancerSourceRanges }}{{ $_ := set $wrong "loadBalancerSourceRanges" "LoadBalancer" }}{{ end }}
{{- end }}
{{- range $value, $types := $wrong }}
{{- fail (printf "proxy.service.type: with %s, %s cannot be set; use the type %s, or remove it" $type $value $types) }}
{{- end }}
{{- if and (eq (toString .service.internalTrafficPolicy) "Local") (ne .kind "DaemonSet") }}
{{- fail "proxy.service.internalTrafficPolicy: with Local, pods on nodes without a proxy are refused; set proxy.kind=DaemonSet, or use proxy.service.trafficDistribution" }}
{{- end }}
{{- end -}}

{{- define "zenvoy.checkResources" -}}
{{- $requests := .resources.requests | default dict }}
{{- range $name, $limit := .resources.limits | default dict }}
{{- $request := get $requests $name }}
{{- if not (kindIs "invalid" $request) }}
{{- if and (ne (toString $request) "") (gt (include "zenvoy.quantity" $request | float64) (include "zenvoy.quantity" $limit | float64)) }}
{{- fail (printf "%s.resources: the request of %s, %v, exceeds its limit, %v; lower the request, or raise the limit" $.part $name $request $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A Kubernetes quantity as a number. */}}
{{- define "zenvoy.quantity" -}}
{{- $factors := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- $text := toString . }}
{{- $unit := regexFind "[A-Za-z]+$" $text }}
{{- mulf (trimSuffix $unit $text | float64) (ternary (get $factors $unit) 1.0 (hasKey $factors $unit)) }}
{{- end -}}

{{- define "zenvoy.checkVersion" -}}
{{- if and .Values.admissionPolicy.enabled (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "admissionPolicy.enabled: needs Kubernetes 1.30, and this is %s; set it to false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- end -}}

{{/* Conditions of cert-manager and of the Prometheus operator. */}}
{{- define "zenvoy.checkDurations" -}}
{{- $manager := .Values.mtls.certManager }}
{{- if and .Values.mtls.enabled (eq .Values.mtls.source "cert-manager") (ge (include "zenvoy.seconds" $manager.renewBefore | float64) (include "zenvoy.seconds" $manager.duration | float64)) }}
{{- fail (printf "mtls.certManager.renewBefore: %s is not less than duration, %s; lower it" $manager.renewBefore $manager.duration) }}
{{- end }}
{{- $monitor := .Values.monitoring.serviceMonitor }}
{{- $interval := $monitor.interval | default .Values.prometheus.scrapeInterval }}
{{- if and $monitor.scrapeTimeout (gt (include "zenvoy.seconds" $monitor.scrapeTimeout | float64) (include "zenvoy.seconds" $interval | float64)) }}
{{- fail (printf "monitoring.serviceMonitor.scrapeTimeout: %s exceeds the interval, %s; lower it" $monitor.scrapeTimeout $interval) }}
{{- end }}
{{- end -}}

{{/* A duration, such as 1h30m, in seconds. */}}
{{- define "zenvoy.seconds" -}}
{{- $factors := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 }}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+(h|ms|m|s)" . -1 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $sum = addf $sum (mulf (trimSuffix $unit . | float64) (get $factors $unit)) }}
{{- end }}
{{- $sum }}
{{- end -}}

{{- define "zenvoy.podIdentity" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}

{{/* Scheduling of pods. Arguments of this and the next template: {root, component, values} */}}
{{- define "zenvoy.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "zenvoy.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{ include "zenvoy.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* The settings of Envoy's listeners, in the words of the services file. */}}
{{- define "zenvoy.proxySettings" -}}
{{- $http := omit .Values.proxy.http "port" "servicePort" "nodePort" -}}
{{- $tls := pick .Values.proxy.tls "proxyProtocol" -}}
{{- $ports := list -}}
{{- range .Values.proxy.tcp }}{{ if .proxyProtocol }}{{ $ports = append $ports (int .port) }}{{ end }}{{ end -}}
{{- dict "http" $http "tls" $tls "tcp" (dict "proxyProtocol" $ports) "keepalive" .Values.proxy.keepalive | toJson -}}
{{- end }}
