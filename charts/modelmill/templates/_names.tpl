{{- define "modelmill.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The release's name, with the chart's unless it holds that. 40 characters leave room for the suffixes. */}}
{{- define "modelmill.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "modelmill.name" .) .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name (include "modelmill.name" .) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* In Airflow's namespace, where several releases may put what it mounts. */}}
{{- define "modelmill.nameForAirflow" -}}
{{- $name := include "modelmill.fullname" . -}}
{{- if or (eq .Release.Namespace .Values.airflow.namespace) (eq .Release.Namespace $name) -}}
{{ $name }}
{{- else -}}
{{ printf "%s-%s" .Release.Namespace $name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "modelmill.selectorLabels" -}}
app.kubernetes.io/name: {{ include "modelmill.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "modelmill.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "modelmill.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: modelmill
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "modelmill.workAccount" -}}
{{ default (printf "%s-work" (include "modelmill.fullname" .)) .Values.serviceAccounts.work.name }}
{{- end }}

{{- define "modelmill.releaseAccount" -}}
{{ default (printf "%s-release" (include "modelmill.fullname" .)) .Values.serviceAccounts.release.name }}
{{- end }}

{{/* Metadata of what has the release's name and a suffix: (list $ SUFFIX). */}}
{{- define "modelmill.metadata" -}}
{{- $top := index . 0 -}}
name: {{ include "modelmill.fullname" $top }}{{ index . 1 }}
namespace: {{ $top.Release.Namespace | quote }}
labels:
  {{- include "modelmill.labels" $top | nindent 2 }}
{{- end }}

{{- define "modelmill.metadataForAirflow" -}}
{{- $top := index . 0 -}}
name: {{ include "modelmill.nameForAirflow" $top }}{{ index . 1 }}
namespace: {{ $top.Values.airflow.namespace | quote }}
labels:
  {{- include "modelmill.labels" $top | nindent 2 }}
{{- end }}
