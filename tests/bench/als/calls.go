package main

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	als "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Calls of one service by another, as the Envoy of either logs them.
type call struct {
	client, server, service, side string
	count, code, ms               int
}

type callList []call

func (l *callList) String() string { return fmt.Sprint(*l) }

func (l *callList) Set(text string) error {
	var c call
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "client":
			c.client = value
		case "server":
			c.server = value
		case "service":
			c.service = value
		case "side":
			c.side = value
		case "count":
			c.count, err = strconv.Atoi(value)
		case "code":
			c.code, err = strconv.Atoi(value)
		case "ms":
			c.ms, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("%q is nothing of a call", name)
		}
		if err != nil {
			return err
		}
	}
	*l = append(*l, c)
	return nil
}

func (c call) entry(number int) *data.HTTPAccessLogEntry {
	took := time.Duration(c.ms) * time.Millisecond
	cluster := "outbound|80||" + c.service
	if c.side == "server" {
		cluster = "inbound|8080||"
	}
	return &data.HTTPAccessLogEntry{
		CommonProperties: &data.AccessLogCommon{
			DownstreamDirectRemoteAddress: socket(c.client, 40000),
			DownstreamLocalAddress:        socket(c.server, 80),
			UpstreamRemoteAddress:         socket(c.server, 8080),
			UpstreamCluster:               cluster,
			StartTime:                     timestamppb.New(time.Now().Add(-took)),
			TimeToLastDownstreamTxByte:    durationpb.New(took),
			Duration:                      durationpb.New(took),
			UpstreamRequestAttemptCount:   1,
			UpstreamWireBytesSent:         100,
			UpstreamWireBytesReceived:     1000,
		},
		ProtocolVersion: data.HTTPAccessLogEntry_HTTP11,
		Request: &data.HTTPRequestProperties{
			RequestMethod: core.RequestMethod_GET,
			Authority:     c.service,
			Path:          fmt.Sprintf("/items/%d", number),
		},
		Response: &data.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(uint32(c.code))},
	}
}

// The generated client, as Envoy's users have it, and the response that ends its stream.
func send(address string, messages []*als.StreamAccessLogsMessage) {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := als.NewAccessLogServiceClient(connection).StreamAccessLogs(ctx, grpc.WaitForReady(true))
	if err != nil {
		log.Fatal(err)
	}
	for _, message := range messages {
		if err := stream.Send(message); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		log.Fatal(err)
	}
}

func sendCalls(address, node string, calls callList) {
	first := &als.StreamAccessLogsMessage{Identifier: &als.StreamAccessLogsMessage_Identifier{
		Node: &core.Node{Id: node}, LogName: "calls"}}
	messages, sent := []*als.StreamAccessLogsMessage{first}, 0
	for _, c := range calls {
		for number := 0; number < c.count; number += 10 {
			list := &als.StreamAccessLogsMessage_HTTPAccessLogEntries{}
			for at := number; at < min(number+10, c.count); at++ {
				list.LogEntry = append(list.LogEntry, c.entry(at))
			}
			sent += len(list.LogEntry)
			messages = append(messages, &als.StreamAccessLogsMessage{LogEntries: &als.StreamAccessLogsMessage_HttpLogs{HttpLogs: list}})
		}
	}
	send(address, messages)
	fmt.Println(sent)
}
