// Package conformance runs containerd's own suite for snapshotters against the real headrace-snapshotter: every case gets a process of
// its own with an empty root, and talks to it through containerd's gRPC client, as containerd does.
//
// Environment: HEADRACE_SNAPSHOTTER, the program. Sockets are made below /run, everything else below TMPDIR.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// Two cores start many processes at once here.
	startDeadline = 30 * time.Second
	// Longer than the grace that the program gives to calls under way.
	stopDeadline = 20 * time.Second
)

// server is one headrace-snapshotter and what it has said.
type server struct {
	command *exec.Cmd
	ended   chan error
	sockets string
	output  bytes.Buffer
}

func start(program, root string) (*server, error) {
	sockets, err := os.MkdirTemp("/run", "suite-") // a short path: sun_path holds 108 bytes
	if err != nil {
		return nil, err
	}
	s := &server{ended: make(chan error, 1), sockets: sockets}
	s.command = exec.Command(program, "--root", root, "--socket", s.socket(), "--control-socket", filepath.Join(sockets, "control.sock"))
	s.command.Stdout, s.command.Stderr = &s.output, &s.output
	if err := s.command.Start(); err != nil {
		os.RemoveAll(sockets)
		return nil, err
	}
	go func() { s.ended <- s.command.Wait() }()
	return s, nil
}

func (s *server) socket() string { return filepath.Join(s.sockets, "snapshotter.sock") }

// connect waits until the server has answered a call.
func (s *server) connect(ctx context.Context) (*grpc.ClientConn, error) {
	connection, err := grpc.NewClient("unix://"+s.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	stat := &snapshotsapi.StatSnapshotRequest{Snapshotter: "headrace", Key: "none"}
	for {
		_, err = snapshotsapi.NewSnapshotsClient(connection).Stat(ctx, stat, grpc.WaitForReady(true))
		if status.Code(err) == codes.NotFound {
			return connection, nil
		}
		select {
		case <-ctx.Done():
			connection.Close()
			return nil, fmt.Errorf("no answer within %v: %w", startDeadline, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop is a clean end: SIGTERM, exit code 0, in time.
func (s *server) stop() error {
	defer os.RemoveAll(s.sockets)
	_ = s.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.ended:
		return err
	case <-time.After(stopDeadline):
		_ = s.command.Process.Kill()
		<-s.ended
		return errors.New("still running long after SIGTERM")
	}
}

func TestSnapshotter(t *testing.T) {
	program := os.Getenv("HEADRACE_SNAPSHOTTER")
	if program == "" {
		t.Fatal("HEADRACE_SNAPSHOTTER does not name the program under test")
	}
	launch := func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := start(program, root)
		if err != nil {
			return nil, nil, err
		}
		connection, err := s.connect(ctx)
		if err != nil {
			stopped := s.stop()
			return nil, nil, fmt.Errorf("%w (its end: %v)\n%s", err, stopped, s.output.String())
		}
		cleanup := func() error {
			connection.Close()
			if err := s.stop(); err != nil {
				return fmt.Errorf("headrace-snapshotter: %w\n%s", err, s.output.String())
			}
			return nil
		}
		return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "headrace"), cleanup, nil
	}
	// The suite leaves the rename of a directory out for this name: overlayfs does it or not as redirect_dir says, whoever made the mount.
	testsuite.SnapshotterSuite(t, "overlayfs", launch)
}
