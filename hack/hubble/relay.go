package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	peerpb "github.com/cilium/cilium/api/v1/peer"
	"github.com/cilium/cilium/pkg/crypto/certloader"
	"github.com/cilium/cilium/pkg/hubble/relay/server"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
)

// peers tells Relay of one node, whose Hubble is at the socket.
type peers struct {
	peerpb.UnimplementedPeerServer
	socket string
}

func (peers peers) Notify(_ *peerpb.NotifyRequest, stream peerpb.Peer_NotifyServer) error {
	node := &peerpb.ChangeNotification{Name: "n1", Address: "unix://" + peers.socket, Type: peerpb.ChangeNotificationType_PEER_ADDED}
	if err := stream.Send(node); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// serveRelay is Cilium's Relay at the address, of the node at the socket; with a folder (tls.crt, tls.key, ca.crt) only for those who
// show a certificate of its authority.
func serveRelay(address, socket, folder string) error {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	temporary, err := os.MkdirTemp("", "relay")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	target := filepath.Join(temporary, "peers.sock")
	listener, err := net.Listen("unix", target)
	if err != nil {
		return err
	}
	service := grpc.NewServer()
	peerpb.RegisterPeerServer(service, peers{socket: socket})
	failed := make(chan error, 2)
	go func() { failed <- service.Serve(listener) }()

	options := []server.Option{
		server.WithListenAddress(address), server.WithHealthListenAddress("127.0.0.1:0"), server.WithPeerTarget("unix://" + target),
		server.WithInsecureClient(), server.WithLogger(logger), server.WithDialTimeout(time.Second), server.WithRetryTimeout(time.Second),
	}
	if folder == "" {
		options = append(options, server.WithInsecureServer())
	} else {
		file := func(name string) string { return filepath.Join(folder, name) }
		config, err := certloader.NewWatchedServerConfig(logger, []string{file("ca.crt")}, file("tls.crt"), file("tls.key"))
		if err != nil {
			return err
		}
		options = append(options, server.WithServerTLS(config))
	}
	relay, err := server.New(options...)
	if err != nil {
		return err
	}
	go func() { failed <- relay.Serve() }()
	for {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
			break
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Println("serves")
	// It ends with its standard input.
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
