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
app.kubernetes.io/name: {{ include "zenvoy.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "zenvoy.labels" -}}
{{ include "zenvoy.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods. They exclude the chart's version, so that a new version alone causes no rollout. */}}
{{- define "zenvoy.podLabels" -}}
{{ include "zenvoy.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .values.podLabels }}
{{ toYaml . }}
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
    secretName: {{ . }}
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
{{- $ranges := dict "holdPorts" .Values.holdPorts "reconciler.statsPorts" .Values.reconciler.statsPorts }}
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
priorityClassName: {{ . }}
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
