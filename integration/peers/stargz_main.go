// stargz-snapshotter as a program. Its own main package is in a module of its own that the Go module registry does not have in
// step with the library, so this is the least that serves the library's snapshotter to containerd: for the benchmark only.
//
//	containerd-stargz-grpc --root DIR --address SOCKET --config FILE   (configuration file of the original, TOML)
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/grpc"
)

func run() error {
	root := flag.String("root", "", "directory of the state")
	address := flag.String("address", "", "unix socket")
	configPath := flag.String("config", "", "configuration")
	flag.Parse()
	var config service.Config
	text, err := os.ReadFile(*configPath)
	if err != nil {
		return err
	}
	if err := toml.Unmarshal(text, &config); err != nil {
		return err
	}
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), *root, &config)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	listener, err := net.Listen("unix", *address)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		return err
	}
	return snapshotter.Close()
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
