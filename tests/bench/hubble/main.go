// Flows of Hubble, by a real gRPC server that has nothing to do but send them, and the client that one would write in
// Go: Cilium's types, and a map of counts.
//
//	hubble serve SOCKET FLOWS FIELDS   to every client so many flows, with all fields of Cilium or those that are `asked` for
//	hubble read SOCKET                 prints how many came, how many were different, and microseconds of processor time
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	pods  = 200
	ports = 5
)

func endpoint(number int) *flowpb.Endpoint {
	workload := fmt.Sprintf("service-%02d", number%40)
	return &flowpb.Endpoint{
		ID: uint32(1000 + number), Identity: uint32(20000 + number%40), Namespace: "shop", PodName: fmt.Sprintf("%s-7d9f8b6c5-%05d", workload, number),
		Labels: []string{
			"k8s:app.kubernetes.io/name=" + workload, "k8s:app.kubernetes.io/part-of=shop", "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
			"k8s:io.cilium.k8s.policy.cluster=default", "k8s:io.cilium.k8s.policy.serviceaccount=" + workload,
		},
		Workloads: []*flowpb.Workload{{Name: workload, Kind: "Deployment"}},
	}
}

// flow is the one of this number, with what is the same in each conversation.
func flow(number int, all bool) *flowpb.Flow {
	source, destination := number%pods, (number*7+1)%pods
	address := func(pod int) string { return fmt.Sprintf("10.0.%d.%d", pod/100, 10+pod%100) }
	flow := &flowpb.Flow{
		Time: timestamppb.Now(), Verdict: flowpb.Verdict_FORWARDED,
		IP: &flowpb.IP{Source: address(source), Destination: address(destination), IpVersion: flowpb.IPVersion_IPv4},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{
			SourcePort: uint32(32768 + number%20000), DestinationPort: uint32(8080 + number%ports), Flags: &flowpb.TCPFlags{SYN: true},
		}}},
		Source: endpoint(source), Destination: endpoint(destination),
		TrafficDirection: flowpb.TrafficDirection_EGRESS, IsReply: wrapperspb.Bool(false),
		EgressAllowedBy: []*flowpb.Policy{{Name: "let-out", Namespace: "shop", Revision: 3}},
	}
	if all {
		flow.Uuid = fmt.Sprintf("6f1b9f3a-3f5e-4c57-9f0e-%012d", number)
		flow.Ethernet = &flowpb.Ethernet{Source: "0a:58:0a:00:00:01", Destination: "0a:58:0a:00:00:02"}
		flow.Type = flowpb.FlowType_L3_L4
		flow.NodeName = "default/ip-10-1-2-3.eu-central-1.compute.internal"
		flow.EventType = &flowpb.CiliumEventType{Type: 4, SubType: 3}
		flow.TraceObservationPoint = flowpb.TraceObservationPoint_TO_STACK
		flow.Interface = &flowpb.NetworkInterface{Index: 12, Name: "lxc0123456789ab"}
		flow.Summary = "TCP Flags: SYN"
	}
	return flow
}

// raw is a message that was encoded before.
type raw []byte

type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(message any) ([]byte, error) { return message.(raw), nil }

func (codec) Unmarshal(data []byte, message any) error {
	return proto.Unmarshal(data, message.(proto.Message))
}

func serve(socket string, count int, all bool) error {
	var messages []raw
	bytes := 0
	for number := range pods * ports * 20 {
		response := &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: flow(number, all)}, Time: timestamppb.Now(), NodeName: "n1"}
		message, err := proto.Marshal(response)
		if err != nil {
			return err
		}
		messages = append(messages, message)
		bytes += len(message)
	}
	handler := func(_ any, stream grpc.ServerStream) error {
		var request observerpb.GetFlowsRequest
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		for number := range count {
			if err := stream.SendMsg(messages[number%len(messages)]); err != nil {
				return err
			}
		}
		return nil
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.ForceServerCodec(codec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "observer.Observer", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "GetFlows", Handler: handler, ServerStreams: true}},
	}, nil)
	fmt.Println("serves", bytes/len(messages))
	return server.Serve(listener)
}

// key is what flows have in common that are counted together: as ours, but for labels and policies.
type key struct {
	source, sourceNamespace, sourcePod                string
	destination, destinationNamespace, destinationPod string
	port                                              uint32
	protocol                                          uint8
	verdict                                           flowpb.Verdict
	direction                                         flowpb.TrafficDirection
	span                                              int64
}

type counts struct {
	count       uint64
	first, last time.Time
}

func read(socket string) error {
	connection, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	stream, err := observerpb.NewObserverClient(connection).GetFlows(context.Background(), &observerpb.GetFlowsRequest{Follow: true})
	if err != nil {
		return err
	}
	flows, total := map[key]*counts{}, 0
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		flow := response.GetFlow()
		if flow == nil || flow.GetIsReply().GetValue() {
			continue
		}
		total++
		source, destination, at := flow.GetSource(), flow.GetDestination(), flow.GetTime().AsTime()
		key := key{
			source: flow.GetIP().GetSource(), sourceNamespace: source.GetNamespace(), sourcePod: source.GetPodName(),
			destination: flow.GetIP().GetDestination(), destinationNamespace: destination.GetNamespace(), destinationPod: destination.GetPodName(),
			verdict: flow.GetVerdict(), direction: flow.GetTrafficDirection(), span: at.Unix() / 10,
		}
		if tcp := flow.GetL4().GetTCP(); tcp != nil {
			key.port, key.protocol = tcp.GetDestinationPort(), 6
		} else if udp := flow.GetL4().GetUDP(); udp != nil {
			key.port, key.protocol = udp.GetDestinationPort(), 17
		}
		seen := flows[key]
		if seen == nil {
			seen = &counts{first: at}
			flows[key] = seen
		}
		seen.count++
		if at.Before(seen.first) {
			seen.first = at
		}
		if at.After(seen.last) {
			seen.last = at
		}
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	fmt.Println(total, len(flows), (usage.Utime.Nano()+usage.Stime.Nano())/1000)
	return nil
}

func main() {
	err := errors.New("usage: hubble serve SOCKET FLOWS all|asked; hubble read SOCKET")
	switch arguments := os.Args[1:]; {
	case len(arguments) == 4 && arguments[0] == "serve":
		var count int
		if count, err = strconv.Atoi(arguments[2]); err == nil {
			err = serve(arguments[1], count, arguments[3] == "all")
		}
	case len(arguments) == 2 && arguments[0] == "read":
		err = read(arguments[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}
