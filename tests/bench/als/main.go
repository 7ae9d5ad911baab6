// Access logs as Envoy's users see them: a client that sends them, and a server that decodes and counts them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	als "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	listen := flag.String("listen", "", "serve at this address until the process is told to end, then print how many entries came")
	to := flag.String("to", "", "send to this address")
	connections := flag.Int("connections", 1, "each with one stream")
	entries := flag.Int("entries", 100, "of a message")
	keys := flag.Int("keys", 100000, "different requests")
	seconds := flag.Float64("seconds", 10, "time for which is sent")
	kinds := flag.Bool("kinds", false, "send one entry of every kind; without -to, print them")
	node := flag.String("node", "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "id of the Envoy that -calls are from")
	var calls callList
	flag.Var(&calls, "call", "send what an Envoy logs of calls, as client=IP,server=IP,service=HOST,count=N,code=N,ms=N and, of the Envoy of the server, side=server; may be repeated")
	flag.Parse()
	switch {
	case *listen != "":
		serve(*listen)
	case *kinds && *to == "":
		printKinds()
	case *kinds:
		sendKinds(*to)
	case len(calls) > 0:
		sendCalls(*to, *node, calls)
	default:
		load(*to, *connections, *entries, *keys, time.Duration(*seconds*float64(time.Second)))
	}
}

// What requests have in common that are counted together; the path is without its query.
type key struct {
	cluster, server, path string
	method                core.RequestMethod
	code                  uint32
}

// What is counted of them.
type counts struct {
	count, sent, received, nanoseconds uint64
}

type server struct {
	als.UnimplementedAccessLogServiceServer
	lock sync.Mutex
	rows map[key]*counts
}

func (s *server) StreamAccessLogs(stream als.AccessLogService_StreamAccessLogsServer) error {
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&als.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		s.lock.Lock()
		for _, entry := range message.GetHttpLogs().GetLogEntry() {
			s.count(entry)
		}
		s.lock.Unlock()
	}
}

func (s *server) count(entry *data.HTTPAccessLogEntry) {
	common, request := entry.GetCommonProperties(), entry.GetRequest()
	path, _, _ := strings.Cut(request.GetPath(), "?")
	key := key{
		cluster: common.GetUpstreamCluster(),
		server:  common.GetUpstreamRemoteAddress().GetSocketAddress().GetAddress(),
		path:    path,
		method:  request.GetRequestMethod(),
		code:    entry.GetResponse().GetResponseCode().GetValue(),
	}
	row := s.rows[key]
	if row == nil {
		row = &counts{}
		s.rows[key] = row
	}
	row.count++
	row.sent += common.GetUpstreamWireBytesSent()
	row.received += common.GetUpstreamWireBytesReceived()
	row.nanoseconds += uint64(common.GetDuration().AsDuration())
}

func serve(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	counting := &server{rows: map[key]*counts{}}
	// The windows that grpc-go is told to have where much arrives.
	serving := grpc.NewServer(grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(4<<20), grpc.MaxRecvMsgSize(4<<20))
	als.RegisterAccessLogServiceServer(serving, counting)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		serving.GracefulStop()
	}()
	if err := serving.Serve(listener); err != nil {
		log.Fatal(err)
	}
	var entries uint64
	for _, row := range counting.rows {
		entries += row.count
	}
	fmt.Println(entries)
}

// Bytes that were encoded before.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { return nil }
func (raw) Name() string                       { return "proto" }

func socket(ip string, port uint32) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address: ip, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}}}
}

// Names that no template folds.
func word(number int) string {
	letters := make([]byte, 6)
	for at := range letters {
		letters[at] = 'g' + byte(number%20)
		number /= 20
	}
	return string(letters)
}

// What an Istio sidecar logs of a request that it sent: one of as many different ones.
func entry(key, keys int) *data.HTTPAccessLogEntry {
	// Those that a receiver tells apart by their paths.
	destinations := max(100, keys/1000)
	destination, path := key%destinations, key/destinations
	code := uint32(200)
	if key%50 == 0 {
		code = 503
	}
	return &data.HTTPAccessLogEntry{
		CommonProperties: &data.AccessLogCommon{
			DownstreamRemoteAddress:       socket("10.0.0.1", 40000+uint32(key%20000)),
			DownstreamDirectRemoteAddress: socket("10.0.0.1", 40000+uint32(key%20000)),
			DownstreamLocalAddress:        socket(fmt.Sprintf("10.96.%d.%d", destination/250, destination%250), 80),
			UpstreamRemoteAddress:         socket(fmt.Sprintf("10.1.%d.%d", destination/250, destination%250), 8080),
			UpstreamLocalAddress:          socket("10.0.0.1", 50000),
			UpstreamCluster:               fmt.Sprintf("outbound|80||service-%d.shop.svc.cluster.local", destination),
			StartTime:                     timestamppb.Now(),
			TimeToLastRxByte:              durationpb.New(100 * time.Microsecond),
			TimeToFirstUpstreamTxByte:     durationpb.New(time.Millisecond),
			TimeToLastUpstreamTxByte:      durationpb.New(time.Millisecond),
			TimeToFirstUpstreamRxByte:     durationpb.New(9 * time.Millisecond),
			TimeToLastUpstreamRxByte:      durationpb.New(10 * time.Millisecond),
			TimeToFirstDownstreamTxByte:   durationpb.New(10 * time.Millisecond),
			TimeToLastDownstreamTxByte:    durationpb.New(time.Duration(5+key%40) * time.Millisecond),
			Duration:                      durationpb.New(time.Duration(5+key%40) * time.Millisecond),
			ResponseFlags:                 &data.ResponseFlags{},
			RouteName:                     "default",
			UpstreamRequestAttemptCount:   1,
			UpstreamWireBytesSent:         512,
			UpstreamWireBytesReceived:     2048,
			DownstreamWireBytesSent:       2048,
			DownstreamWireBytesReceived:   512,
			Metadata: &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"istio_authn": {Fields: map[string]*structpb.Value{
				"source.principal": structpb.NewStringValue("spiffe://cluster.local/ns/shop/sa/web")}}}},
		},
		ProtocolVersion: data.HTTPAccessLogEntry_HTTP11,
		Request: &data.HTTPRequestProperties{
			RequestMethod:       core.RequestMethod_GET,
			Scheme:              "http",
			Authority:           fmt.Sprintf("service-%d.shop", destination),
			Path:                fmt.Sprintf("/api/%s/items/%d?page=%d", word(path), key, key%7),
			UserAgent:           "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
			RequestId:           fmt.Sprintf("3f2504e0-4f89-11d3-9a0c-%012d", key),
			RequestHeadersBytes: 700,
		},
		Response: &data.HTTPResponseProperties{
			ResponseCode:         wrapperspb.UInt32(code),
			ResponseHeadersBytes: 200,
			ResponseBodyBytes:    1800,
			ResponseCodeDetails:  "via_upstream",
		},
	}
}

// Messages with every key once, in any order; the first one of a stream also says who sends it.
func messages(keys, size int, identifier *als.StreamAccessLogsMessage_Identifier) [][]byte {
	order := rand.New(rand.NewSource(1)).Perm(keys)
	var encoded [][]byte
	for len(order) > 0 {
		part := order[:min(size, len(order))]
		order = order[len(part):]
		list := &als.StreamAccessLogsMessage_HTTPAccessLogEntries{}
		for _, key := range part {
			list.LogEntry = append(list.LogEntry, entry(key, keys))
		}
		message := &als.StreamAccessLogsMessage{LogEntries: &als.StreamAccessLogsMessage_HttpLogs{HttpLogs: list}}
		if len(encoded) == 0 {
			message.Identifier = identifier
		}
		bytes, err := proto.Marshal(message)
		if err != nil {
			log.Fatal(err)
		}
		encoded = append(encoded, bytes)
	}
	return encoded
}

func load(address string, connections, size, keys int, during time.Duration) {
	identifier := &als.StreamAccessLogsMessage_Identifier{
		Node:    &core.Node{Id: "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", Cluster: "web.shop"},
		LogName: "kestrel",
	}
	encoded := messages(keys, size, identifier)
	var sent, bytes atomic.Uint64
	var clients sync.WaitGroup
	begun := time.Now()
	for number := 0; number < connections; number++ {
		clients.Add(1)
		go func() {
			defer clients.Done()
			client, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})),
				grpc.WithWriteBufferSize(128<<10))
			if err != nil {
				log.Fatal(err)
			}
			defer client.Close()
			stream, err := client.NewStream(context.Background(), &als.AccessLogService_ServiceDesc.Streams[0], als.AccessLogService_StreamAccessLogs_FullMethodName)
			if err != nil {
				log.Fatal(err)
			}
			for at := 0; at == 0 || time.Since(begun) < during; at++ {
				// Each connection begins elsewhere, after it has said who it is.
				place := 0
				if at > 0 {
					place = (at + number*len(encoded)/connections) % len(encoded)
				}
				if err := stream.SendMsg(&encoded[place]); err != nil {
					log.Fatal(err)
				}
				count := size
				if place == len(encoded)-1 {
					count = keys - size*(len(encoded)-1)
				}
				sent.Add(uint64(count))
				bytes.Add(uint64(len(encoded[place])))
			}
			if err := stream.CloseSend(); err != nil {
				log.Fatal(err)
			}
			var answer []byte
			if err := stream.RecvMsg(&answer); err != nil {
				log.Fatal(err)
			}
		}()
	}
	clients.Wait()
	fmt.Println(sent.Load(), bytes.Load(), time.Since(begun).Microseconds())
}
