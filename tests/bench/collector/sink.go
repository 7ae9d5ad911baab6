package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// counter takes all log records and keeps none.
type counter struct {
	plogotlp.UnimplementedGRPCServer
	records atomic.Int64
}

func (c *counter) Export(_ context.Context, request plogotlp.ExportRequest) (plogotlp.ExportResponse, error) {
	c.records.Add(int64(request.Logs().LogRecordCount()))
	return plogotlp.NewExportResponse(), nil
}

// certificate that nobody verifies: only the work of encryption is wanted.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// sink serves OTLP over TLS on a free port of the loopback. It prints the port, and then the number of records so far
// whenever that has grown.
func sink() error {
	certificate, err := certificate()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	counter := &counter{}
	go func() {
		for told := int64(0); ; time.Sleep(10 * time.Millisecond) {
			if now := counter.records.Load(); now != told {
				told = now
				fmt.Println(now)
			}
		}
	}()
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&certificate)), grpc.MaxRecvMsgSize(64<<20))
	plogotlp.RegisterGRPCServer(server, counter)
	return server.Serve(listener)
}
