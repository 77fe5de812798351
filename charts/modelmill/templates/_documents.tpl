{{/* The deployment as `modelmill.deployment` reads it. */}}
{{- define "modelmill.deployment" -}}
{{- $accounts := dict "untrusted" (include "modelmill.workAccount" .) "release" (include "modelmill.releaseAccount" .) -}}
{{- $filled := dict "namespace" .Release.Namespace "service_accounts" $accounts -}}
{{ toYaml (merge $filled .Values.deployment) }}
{{- end }}

{{/* File name -> text. A recipe's text is never taken for a template. */}}
{{- define "modelmill.recipes" -}}
{{- $files := dict -}}
{{- range $name, $recipe := .Values.recipes -}}
{{- $_ := set $files (printf "%s.yaml" $name) (kindIs "string" $recipe | ternary $recipe (toYaml $recipe)) -}}
{{- end -}}
{{ toYaml $files }}
{{- end }}

{{/* What the schema cannot say, each with the way out. */}}
{{- define "modelmill.check" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if eq (include "modelmill.workAccount" .) (include "modelmill.releaseAccount" .) -}}
{{- fail "serviceAccounts: work and release have one name, so that steps which read untrusted models could write the registry: name two" -}}
{{- end -}}
{{- range $release := .Values.deployment.release_secrets -}}
{{- range $work := $.Values.deployment.secrets -}}
{{- if and (eq $release.secret $work.secret) (eq $release.key $work.key) -}}
{{- fail (printf "deployment: the key %s of the secret %s is in release_secrets and in secrets, which every step gets: take it out of secrets" $release.key $release.secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $recipe := .Values.recipes -}}
{{- if and (kindIs "string" $recipe) (hasKey (fromYaml $recipe) "Error") -}}
{{- fail (printf "recipes.%s is no mapping of a recipe's fields: give a file's text (--set-file recipes.%s=recipe.yaml)" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $policy.enabled .Values.kubeflow.enabled -}}
{{- if not $policy.kubernetesApi.peers -}}
{{- fail "networkPolicy.kubernetesApi.peers is empty, and Kubeflow's launcher needs the Kubernetes API: name its addresses (kubectl get endpointslices kubernetes), for example --set 'networkPolicy.kubernetesApi.peers[0].ipBlock.cidr=10.0.0.1/32'" -}}
{{- end -}}
{{- if and $policy.denyOthers (eq .Release.Namespace .Values.kubeflow.namespace) -}}
{{- fail (printf "networkPolicy.denyOthers would shut off Kubeflow's own services, which are in the namespace %s, too: set it to false there" .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- if and $policy.enabled $policy.denyOthers .Values.airflow.enabled (eq .Release.Namespace .Values.airflow.namespace) -}}
{{- fail (printf "networkPolicy.denyOthers would shut off Airflow itself, which is in the namespace %s, too: set it to false there" .Release.Namespace) -}}
{{- end -}}
{{- range $name, $_ := .Values.quota -}}
{{- if hasPrefix "limits." $name -}}
{{- if not (hasKey (default dict $.Values.limitRange.default) (trimPrefix "limits." $name)) -}}
{{- fail (printf "quota.%s refuses pods whose sidecars name no limit: set limitRange.default.%s too" $name (trimPrefix "limits." $name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
