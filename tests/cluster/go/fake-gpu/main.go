// Command fake-gpu advertises GPUs that are not there: a kubelet device plugin without hardware.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	endpoint = "fake-gpu.sock"
)

type server struct {
	plugin.UnimplementedDevicePluginServer
	devices []*plugin.Device
}

func (s *server) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices once; they never change.
func (s *server) ListAndWatch(_ *plugin.Empty, stream plugin.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: s.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (s *server) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	response := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		visible := strings.Join(container.DevicesIds, ",")
		response.ContainerResponses = append(response.ContainerResponses,
			&plugin.ContainerAllocateResponse{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": visible}})
	}
	return response, nil
}

func register(kubelet string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err = plugin.NewRegistrationClient(connection).Register(ctx,
		&plugin.RegisterRequest{Version: plugin.Version, Endpoint: endpoint, ResourceName: resource})
	return err
}

// serve answers one life of the kubelet; it returns when a starting kubelet has emptied the folder.
func serve(folder string, devices []*plugin.Device) error {
	socket := filepath.Join(folder, endpoint)
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer()
	plugin.RegisterDevicePluginServer(grpcServer, &server{devices: devices})
	go func() { _ = grpcServer.Serve(listener) }()
	defer grpcServer.Stop()

	registered := false
	for ; ; time.Sleep(200 * time.Millisecond) {
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		if !registered {
			if registered = register(filepath.Join(folder, "kubelet.sock")) == nil; registered {
				log.Printf("registered %d x %s", len(devices), resource)
			}
		}
	}
}

func main() {
	count := flag.Int("count", 2, "how many GPUs")
	folder := flag.String("folder", plugin.DevicePluginPath, "the kubelet's folder of device plugins")
	flag.Parse()
	var devices []*plugin.Device
	for i := range *count {
		devices = append(devices, &plugin.Device{ID: fmt.Sprintf("GPU-fake-%d", i), Health: plugin.Healthy})
	}
	for ; ; time.Sleep(200 * time.Millisecond) {
		log.Print(serve(*folder, devices))
	}
}
