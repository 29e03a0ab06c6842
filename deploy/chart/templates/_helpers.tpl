{{- define "windlass.name" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "windlass" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-windlass" (.Release.Name | trunc 31 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "windlass.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (printf "%s-executor" (include "windlass.name" .)) }}
{{- end -}}

{{- /* The account of the log relays: none but the namespace's own unless a cloud's identity is wanted. */}}
{{- define "windlass.relayServiceAccount" -}}
{{- if or .Values.logRelay.serviceAccount.name .Values.logRelay.serviceAccount.annotations }}
{{- .Values.logRelay.serviceAccount.name | default (printf "%s-log-relay" (include "windlass.name" .)) }}
{{- end }}
{{- end }}

{{/* Two releases of one name in two namespaces have cluster-wide objects of their own. */}}
{{- define "windlass.clusterName" -}}
{{ printf "%s-%s-executor" .Release.Namespace (include "windlass.name" .) }}
{{- end -}}

{{- define "windlass.selector" -}}
app.kubernetes.io/name: windlass
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "windlass.labels" -}}
{{ include "windlass.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "windlass.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "windlass.scheme" -}}
{{ ternary "https" "http" .Values.tls.enabled }}
{{- end -}}

{{/* Where the services dial the scheduler. */}}
{{- define "windlass.schedulerAddress" -}}
{{- $host := printf "%s-scheduler.%s.svc" (include "windlass.name" .) .Release.Namespace -}}
{{ printf "%s://%s:%v" (include "windlass.scheme" .) (ternary .Values.hostNetwork.address $host .Values.hostNetwork.enabled) .Values.scheduler.port }}
{{- end -}}

{{/* What a log relay says of itself; $(POD_NAME) is replaced by the kubelet. */}}
{{- define "windlass.relayAddress" -}}
{{- $host := printf "$(POD_NAME).%s-log-relay.%s.svc" (include "windlass.name" .) .Release.Namespace -}}
{{ .Values.logRelay.advertisedAddress | default (printf "%s://%s:%v" (include "windlass.scheme" .) (ternary .Values.hostNetwork.address $host .Values.hostNetwork.enabled) .Values.logRelay.port) }}
{{- end -}}

{{- define "windlass.listen" -}}
{{ printf "%s:%v" (ternary .root.Values.hostNetwork.address "0.0.0.0" .root.Values.hostNetwork.enabled) .port }}
{{- end -}}

{{/* windlass.tlsSecret (root, part): the Secret with tls.crt, tls.key and ca.crt of a service. */}}
{{- define "windlass.tlsSecret" -}}
{{- $names := dict "scheduler" "scheduler" "executor" "executor" "logRelay" "log-relay" -}}
{{- if eq .root.Values.tls.source "secret" -}}
{{ required (printf "tls.secrets.%s: with tls.source secret, names a Secret with tls.crt, tls.key and ca.crt" .part) (get .root.Values.tls.secrets .part) }}
{{- else -}}
{{ printf "%s-%s-tls" (include "windlass.name" .root) (get $names .part) }}
{{- end -}}
{{- end -}}

{{/* windlass.accessSecret (root, part): the Secret with the access file, or with a service's token. */}}
{{- define "windlass.accessSecret" -}}
{{- $names := dict "access" "access" "executor" "executor-token" "logRelay" "log-relay-token" -}}
{{- if eq .root.Values.access.source "secret" -}}
{{ required (printf "access.secrets.%s: with access.source secret, names a Secret with %s" .part (ternary "access.yaml" "token" (eq .part "access"))) (get .root.Values.access.secrets .part) }}
{{- else -}}
{{ printf "%s-%s" (include "windlass.name" .root) (get $names .part) }}
{{- end -}}
{{- end -}}

{{/* windlass.names (root, part): the DNS names of a service's certificate, as JSON. */}}
{{- define "windlass.dnsNames" -}}
{{- $name := include "windlass.name" .root -}}
{{- $namespace := .root.Release.Namespace -}}
{{- if eq .part "scheduler" -}}
{{- $own := list (printf "%s-scheduler" $name) (printf "%s-scheduler.%s" $name $namespace) (printf "%s-scheduler.%s.svc" $name $namespace) "localhost" -}}
{{ concat $own .root.Values.tls.dnsNames | toJson }}
{{- else if eq .part "logRelay" -}}
{{- $own := list (printf "*.%s-log-relay.%s.svc" $name $namespace) (printf "%s-log-relay.%s.svc" $name $namespace) "localhost" -}}
{{ concat $own .root.Values.tls.dnsNames | toJson }}
{{- else -}}
{{ list (printf "%s-executor" $name) | toJson }}
{{- end -}}
{{- end -}}

{{- define "windlass.ipAddresses" -}}
{{- if eq .part "executor" -}}[]{{- else -}}
{{ concat (list "127.0.0.1") (ternary (list .root.Values.hostNetwork.address) (list) .root.Values.hostNetwork.enabled) .root.Values.tls.ipAddresses | uniq | toJson }}
{{- end -}}
{{- end -}}

{{/* windlass.probe (root, port): health is answered in plain text and without tokens. A loopback address has no gRPC probe. */}}
{{- define "windlass.probe" -}}
{{- if .root.Values.hostNetwork.enabled -}}
tcpSocket: {host: {{ .root.Values.hostNetwork.address | quote }}, port: {{ .port }}}
{{- else -}}
grpc: {port: {{ .port }}}
{{- end -}}
{{- end -}}

{{/* windlass.pod (root, part, values, account): what the pods of all services have in common. */}}
{{- define "windlass.podMetadata" -}}
labels:
  {{- include "windlass.selector" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
  {{- if and .root.Values.metrics.annotations .root.Values.metrics.port }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ .root.Values.metrics.port | quote }}
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "windlass.podSpec" -}}
enableServiceLinks: false
{{- if .root.Values.hostNetwork.enabled }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "windlass.container" -}}
image: {{ include "windlass.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources: {{- toYaml .values.resources | nindent 2 }}
{{- end -}}

{{- define "windlass.commonArgs" -}}
{{- if .Values.tls.enabled }}
- --tls-cert=/etc/windlass/tls/tls.crt
- --tls-key=/etc/windlass/tls/tls.key
- --tls-ca=/etc/windlass/tls/ca.crt
{{- end }}
- --log-format={{ .Values.logging.format }}
- --log={{ .Values.logging.filter }}
{{- end -}}

{{/* Each service has a metrics port of its own where they share the network of their node. */}}
{{- define "windlass.metricsArg" -}}
{{- with .root.Values.metrics.port }}
- --metrics-addr=0.0.0.0:{{ . }}
{{- end }}
{{- end -}}

{{- define "windlass.metricsPort" -}}
{{- with .Values.metrics.port }}
- {name: metrics, containerPort: {{ . }}}
{{- end }}
{{- end -}}
