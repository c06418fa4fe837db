{{/* Where everything lies that has a namespace. */}}
{{- define "penstock.namespace" -}}
{{ .Values.namespace | default .Release.Namespace }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "penstock.labels" -}}
app.kubernetes.io/part-of: penstock
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* One of Penstock's own images: (list . NAME). */}}
{{- define "penstock.image" -}}
{{- $top := index . 0 -}}
{{- with $top.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ index . 1 }}:{{ $top.Values.images.tag | default $top.Chart.AppVersion }}
{{- end }}
