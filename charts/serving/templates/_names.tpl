{{/* The model's name as a Kubernetes service can have it; `modelmill.serving.kserve.object_name` says the same. */}}
{{- define "serving.name" -}}
{{- $name := regexReplaceAll "[^a-z0-9-]+" (lower .Values.model) "-" | trimAll "-" | trunc 40 | trimSuffix "-" -}}
{{- if regexMatch "^[a-z]" $name -}}
{{ $name }}
{{- else -}}
{{ printf "model-%s" $name | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "serving.metadata" -}}
namespace: {{ .Release.Namespace | quote }}
labels:
  app.kubernetes.io/name: {{ include "serving.name" . }}
  app.kubernetes.io/part-of: modelmill
{{- end }}

{{/* Starts Triton on the lane, wherever it lies in the bundle. */}}
{{- define "serving.start" -}}
{{- $places := printf "/mnt/models/serving/%s /mnt/models/lanes/*/serving/%s" .Values.target .Values.target -}}
{{- printf "for at in %s; do if [ -d \"$at\" ]; then exec tritonserver --model-repository=\"$at\" \"$@\"; fi; done; echo \"the bundle has no lane %s\" >&2; exit 2" $places .Values.target -}}
{{- end }}

{{/* What the schema cannot say, each with the way out. */}}
{{- define "serving.check" -}}
{{- if .Values.serve -}}
{{- range $name := list "model" "target" "image" -}}
{{- if not (index $.Values $name) -}}
{{- fail (printf "%s is empty: give what `modelmill serving values MODEL CHANNEL --image IMAGE` prints (--values FILE), or set serve to false" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (and .Values.bundle.digest .Values.bundle.uri) -}}
{{- fail "bundle has no digest or no uri: give what `modelmill serving values MODEL CHANNEL --image IMAGE` prints (--values FILE)" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas: raise the one or lower the other" -}}
{{- end -}}
{{- end -}}
{{- if or .Values.argocd.enabled .Values.flux.enabled -}}
{{- if not (and .Values.repository.url .Values.repository.path .Values.model) -}}
{{- fail "Argo CD or Flux is enabled, and repository.url, repository.path or model is empty: name the repository of deployment.git and the overlay's folder in it" -}}
{{- end -}}
{{- if .Values.serve -}}
{{- fail "serve is true, and Argo CD or Flux is enabled: two would write one InferenceService; set serve to false, or install twice" -}}
{{- end -}}
{{- if and .Values.argocd.enabled .Values.flux.enabled -}}
{{- fail "argocd.enabled and flux.enabled: two would write the same objects; choose one" -}}
{{- end -}}
{{- end -}}
{{- end }}
