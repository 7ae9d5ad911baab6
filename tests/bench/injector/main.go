// The least injector that one would write in Go: net/http, the typed AdmissionReview and Pod, a patch
// of the same size as ours. It has no informers and no templates, so it is a floor for such injectors.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"

	admission "k8s.io/api/admission/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

type add struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

var (
	always    = core.ContainerRestartPolicyAlways
	yes, no   = true, false
	user      = int64(65532)
	size      = resource.MustParse("16Mi")
	hour      = int64(3600)
	resources = core.ResourceRequirements{
		Requests: core.ResourceList{"cpu": resource.MustParse("5m"), "memory": resource.MustParse("16Mi")},
		Limits:   core.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")},
	}
)

func field(name, path string) core.EnvVar {
	return core.EnvVar{Name: name, ValueFrom: &core.EnvVarSource{FieldRef: &core.ObjectFieldSelector{FieldPath: path}}}
}

func collector(pod *core.Pod) (core.Container, []core.Volume) {
	mounts := []core.VolumeMount{
		{Name: "link-token", MountPath: "/kestrel/token", ReadOnly: true},
		{Name: "state", MountPath: "/kestrel/state"},
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.EmptyDir != nil && volume.EmptyDir.Medium == "" {
			mounts = append(mounts, core.VolumeMount{Name: volume.Name, MountPath: "/volumes/" + volume.Name, ReadOnly: true})
		}
	}
	container := core.Container{
		Name: "collector", Image: "registry/collector:1", ImagePullPolicy: core.PullIfNotPresent,
		Command: []string{"/collector"}, RestartPolicy: &always, Resources: resources, VolumeMounts: mounts,
		Env: []core.EnvVar{
			field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
			field("POD_UID", "metadata.uid"), field("NODE_NAME", "spec.nodeName"),
			{Name: "LINK_ENDPOINT", Value: "https://link:8443"},
		},
		SecurityContext: &core.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
			Capabilities:   &core.Capabilities{Drop: []core.Capability{"ALL"}},
			SeccompProfile: &core.SeccompProfile{Type: core.SeccompProfileTypeRuntimeDefault},
		},
	}
	token := core.ServiceAccountTokenProjection{Audience: "link", ExpirationSeconds: &hour, Path: "token"}
	return container, []core.Volume{
		{Name: "link-token", VolumeSource: core.VolumeSource{Projected: &core.ProjectedVolumeSource{
			Sources: []core.VolumeProjection{{ServiceAccountToken: &token}}}}},
		{Name: "state", VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{SizeLimit: &size}}},
	}
}

func patch(pod *core.Pod) []add {
	container, volumes := collector(pod)
	patch := []add{
		{"add", "/metadata/labels/injected", "true"},
		{"add", "/metadata/annotations/status", "injected"},
	}
	if pod.Spec.Volumes == nil {
		patch = append(patch, add{"add", "/spec/volumes", volumes})
	} else {
		for _, volume := range volumes {
			patch = append(patch, add{"add", "/spec/volumes/-", volume})
		}
	}
	if pod.Spec.InitContainers == nil {
		return append(patch, add{"add", "/spec/initContainers", []core.Container{container}})
	}
	return append(patch, add{"add", "/spec/initContainers/-", container})
}

func mutate(writer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(writer, request.Body, 4<<20))
	var review admission.AdmissionReview
	var pod core.Pod
	if err == nil {
		err = json.Unmarshal(body, &review)
	}
	if err == nil && review.Request != nil {
		err = json.Unmarshal(review.Request.Object.Raw, &pod)
	}
	if err != nil || review.Request == nil {
		http.Error(writer, "no AdmissionReview of a pod", http.StatusBadRequest)
		return
	}
	answer := &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if pod.Annotations["kestrel.ai/inject"] == "true" {
		kind := admission.PatchTypeJSONPatch
		answer.PatchType = &kind
		answer.Patch, err = json.Marshal(patch(&pod))
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(admission.AdmissionReview{TypeMeta: review.TypeMeta, Response: answer})
	}
	if err != nil {
		http.Error(writer, err.Error(), http.StatusInternalServerError)
		return
	}
	writer.Header().Set("Content-Type", "application/json")
	_, _ = writer.Write(text)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	certificate := flag.String("tls-cert", "", "PEM file")
	key := flag.String("tls-key", "", "PEM file")
	flag.Parse()
	http.HandleFunc("POST /mutate", mutate)
	log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, nil))
}
