{{/* What the release's objects are called: with the release "pythia" as in deploy/k8s. */}}
{{- define "pythia.name" -}}
{{ .Values.nameOverride | default .Release.Name }}
{{- end }}

{{/* What chooses the pods of this release. */}}
{{- define "pythia.selector" -}}
app.kubernetes.io/name: pythia
app.kubernetes.io/part-of: pythia-bento
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pythia.labels" -}}
{{ include "pythia.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* A document of deploy/k8s, with this release's name and labels; of (list $ PATH). */}}
{{- define "pythia.document" -}}
{{- $root := index . 0 }}
{{- $document := $root.Files.Get (printf "files/%s" (index . 1)) | fromYaml }}
{{- $metadata := $document.metadata }}
{{- $labels := include "pythia.labels" $root | fromYaml }}
{{- $_ := set $metadata "name" (regexReplaceAll "^pythia" $metadata.name (include "pythia.name" $root)) }}
{{- $_ := set $metadata "labels" (merge ($metadata.labels | default dict) $labels) }}
{{- toYaml $document }}
{{- end }}

{{/* PYTHIA_* of the base, of what the values name, and of `settings`, which wins. */}}
{{- define "pythia.settings" -}}
{{- $found := dict }}
{{- range splitList "\n" (.Files.Get "files/base/settings.env") }}
{{-   if and . (not (hasPrefix "#" .)) }}
{{-     $pair := splitn "=" 2 . }}
{{-     $_ := set $found $pair._0 $pair._1 }}
{{-   end }}
{{- end }}
{{- range $name, $value := dict "PYTHIA_MODEL" .Values.model "PYTHIA_MODELS" .Values.models "PYTHIA_PINNED" .Values.pinned }}
{{-   if $value }}{{ $_ := set $found $name $value }}{{ end }}
{{- end }}
{{- if and (eq .Values.device "cuda") (gt (int .Values.gpu.count) 1) }}
{{-   $_ := set $found "PYTHIA_DEVICES" "auto" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{-   $_ := set $found $name (toString $value) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* The image, and where it comes from; of (list $ CONTAINER POD), which it changes. */}}
{{- define "pythia.image" -}}
{{- $root := index . 0 }}{{ $image := $root.Values.image }}
{{- $device := ternary "cuda" "cpu" (eq $root.Values.device "cuda") }}
{{- $tag := $image.tag | default (printf "%s-%s" $root.Chart.AppVersion $device) }}
{{- $version := ternary (printf "@%s" $image.digest) (printf ":%s" $tag) (ne $image.digest "") }}
{{- $_ := set (index . 1) "image" (print $image.repository $version) }}
{{- $_ := set (index . 1) "imagePullPolicy" $image.pullPolicy }}
{{- with $image.pullSecrets }}{{ $_ := set (index $ 2) "imagePullSecrets" . }}{{ end }}
{{- end }}

{{/* The lock of `lock` in place of the image's; of (list $ CONTAINER POD), which it changes. */}}
{{- define "pythia.lock" -}}
{{- $root := index . 0 }}{{ $container := index . 1 }}{{ $pod := index . 2 }}
{{- if $root.Values.lock }}
{{-   $mount := dict "name" "lock" "mountPath" "/home/bentoml/bento/src/pythia.lock" "subPath" "pythia.lock" "readOnly" true }}
{{-   $map := dict "name" (printf "%s-lock" (include "pythia.name" $root)) }}
{{-   $_ := set $container "volumeMounts" (append $container.volumeMounts $mount) }}
{{-   $_ := set $pod "volumes" (append $pod.volumes (dict "name" "lock" "configMap" $map)) }}
{{- end }}
{{- end }}

{{/* The claim of the checkpoints. */}}
{{- define "pythia.claim" -}}
{{ .Values.store.existingClaim | default (printf "%s-store" (include "pythia.name" .)) }}
{{- end }}

{{/* Where pods may and must run; of (list $ POD), which it changes. */}}
{{- define "pythia.placement" -}}
{{- $values := (index . 0).Values }}{{ $pod := index . 1 }}
{{- range $name := list "nodeSelector" "affinity" "priorityClassName" "runtimeClassName" }}
{{-   with index $values $name }}{{ $_ := set $pod $name . }}{{ end }}
{{- end }}
{{- with $values.tolerations }}
{{-   $_ := set $pod "tolerations" (concat ($pod.tolerations | default list) .) }}
{{- end }}
{{- end }}
