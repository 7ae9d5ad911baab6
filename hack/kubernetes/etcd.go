package main

import (
	"context"
	"fmt"
	"net/url"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// newEtcdCommand runs a single etcd member without client TLS: it listens on
// the loopback of the cluster's own network namespace, where only the API
// server lives.
func newEtcdCommand() *cobra.Command {
	var dataDir, listen string
	command := &cobra.Command{
		Use:   "etcd",
		Short: "single etcd member for a local cluster",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := url.Parse(listen)
			if err != nil {
				return fmt.Errorf("--listen-client-url: %w", err)
			}
			cfg := embed.NewConfig()
			cfg.Dir = dataDir
			cfg.ListenClientUrls = []url.URL{*client}
			cfg.AdvertiseClientUrls = cfg.ListenClientUrls
			cfg.LogLevel = "warn"
			// The cluster is thrown away with its disk: durability would only
			// cost fsync time here.
			cfg.UnsafeNoFsync = true
			member, err := embed.StartEtcd(cfg)
			if err != nil {
				return err
			}
			defer member.Close()
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			select {
			case <-ctx.Done():
				return nil
			case err := <-member.Err():
				return err
			}
		},
	}
	command.Flags().StringVar(&dataDir, "data-dir", "", "folder of the member's data")
	command.Flags().StringVar(&listen, "listen-client-url", "http://127.0.0.1:2379", "URL to serve clients on")
	return command
}
