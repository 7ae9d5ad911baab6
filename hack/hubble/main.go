// Hubble as Cilium's agent serves it, without a kernel: Cilium's own parser, ring and observer, behind a socket.
//
//	hubble SOCKET CAPACITY [ADDRESS/NAMESPACE/POD ADDRESS/NAMESPACE/POD]
//	hubble relay ADDRESS SOCKET [FOLDER]
//
// The second is Cilium's Relay of the node at SOCKET, with TLS for clients that show a certificate if FOLDER has tls.crt, tls.key and ca.crt.
// CAPACITY is how many events the ring keeps (one less than a power of two). Each line of the standard input is a kind
// of event and how many of them happen: `passed`, `dropped`, `replies` (packets of the first of the two pods to the second, which are shop/web-1 and shop/db-0 if none are named, port 5432, and back),
// `lost` (events that the kernel's ring lost, told as one). It prints a line when it serves, and one for each line read.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	v1 "github.com/cilium/cilium/pkg/hubble/api/v1"
	"github.com/cilium/cilium/pkg/hubble/container"
	"github.com/cilium/cilium/pkg/hubble/observer"
	"github.com/cilium/cilium/pkg/hubble/observer/observeroption"
	"github.com/cilium/cilium/pkg/hubble/observer/types"
	"github.com/cilium/cilium/pkg/hubble/parser"
	"github.com/cilium/cilium/pkg/hubble/testutils"
	"github.com/cilium/cilium/pkg/monitor"
	monitorapi "github.com/cilium/cilium/pkg/monitor/api"
	"github.com/google/gopacket/layers"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
)

const port = 5432

var web, db = "10.0.1.7", "10.0.2.8"

var pods = map[string]*testutils.FakeEndpointInfo{
	web: {ID: 7, Identity: 1007, PodNamespace: "shop", PodName: "web-1", Labels: []string{"k8s:app=web"}},
	db:  {ID: 8, Identity: 1008, PodNamespace: "shop", PodName: "db-0", Labels: []string{"k8s:app=db"}},
}

// name gives the pod at the address the name ADDRESS/NAMESPACE/POD; its address then.
func name(address, as string) string {
	pod := pods[address]
	delete(pods, address)
	address, rest, _ := strings.Cut(as, "/")
	pod.PodNamespace, pod.PodName, _ = strings.Cut(rest, "/")
	pods[address] = pod
	return address
}

func newParser(logger logrus.FieldLogger) (*parser.Parser, error) {
	endpoints := &testutils.FakeEndpointGetter{
		OnGetEndpointInfo: func(ip netip.Addr) (v1.EndpointInfo, bool) {
			pod, known := pods[ip.String()]
			return pod, known
		},
		OnGetEndpointInfoByID: func(uint16) (v1.EndpointInfo, bool) { return nil, false },
	}
	names := &testutils.FakeFQDNCache{
		OnGetNamesOf: func(_ uint32, ip netip.Addr) []string { return nil },
	}
	return parser.New(logger, endpoints, &testutils.NoopIdentityGetter, names, &testutils.NoopIPGetter,
		&testutils.NoopServiceGetter, &testutils.NoopLinkGetter, &testutils.NoopPodMetadataGetter)
}

// packet is one from source to destination, as the datapath tells of it.
func packet(notice any, source, destination string, sourcePort, destinationPort layers.TCPPort) *types.PerfEvent {
	return &types.PerfEvent{Data: testutils.MustCreateL3L4Payload(notice,
		&layers.Ethernet{SrcMAC: make(net.HardwareAddr, 6), DstMAC: make(net.HardwareAddr, 6), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(source), DstIP: net.ParseIP(destination)},
		&layers.TCP{SrcPort: sourcePort, DstPort: destinationPort, SYN: true},
	)}
}

// event is what the agent reads of the kernel's ring.
func event(kind string, count uint64) (any, error) {
	switch kind {
	case "passed":
		notice := monitor.TraceNotifyV0{Type: monitorapi.MessageTypeTrace, ObsPoint: monitorapi.TraceToLxc, Reason: monitor.TraceReasonPolicy}
		return packet(notice, web, db, 40000, port), nil
	case "replies":
		notice := monitor.TraceNotifyV0{Type: monitorapi.MessageTypeTrace, ObsPoint: monitorapi.TraceToLxc, Reason: monitor.TraceReasonCtReply}
		return packet(notice, db, web, port, 40000), nil
	case "dropped":
		notice := monitor.DropNotify{Type: monitorapi.MessageTypeDrop, SubType: uint8(flowpb.DropReason_POLICY_DENIED)}
		return packet(notice, web, db, 40000, port), nil
	case "lost":
		return &types.LostEvent{Source: types.LostEventSourcePerfRingBuffer, NumLostEvents: count}, nil
	default:
		return nil, fmt.Errorf("%q is no kind of event", kind)
	}
}

func happen(events chan<- *types.MonitorEvent, line string) error {
	var kind string
	var count uint64
	if _, err := fmt.Sscan(line, &kind, &count); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	payload, err := event(kind, count)
	if err != nil {
		return err
	}
	if kind == "lost" {
		count = 1
	}
	for range count {
		events <- &types.MonitorEvent{Timestamp: time.Now(), NodeName: "n1", Payload: payload}
	}
	return nil
}

func run(socket string, capacity int) error {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	decoder, err := newParser(logger)
	if err != nil {
		return err
	}
	size, err := container.NewCapacity(capacity)
	if err != nil {
		return err
	}
	hubble, err := observer.NewLocalServer(decoder, observer.NewNamespaceManager(), logger, observeroption.WithMaxFlows(size))
	if err != nil {
		return err
	}
	go hubble.Start()
	// One that was killed left its own.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	observerpb.RegisterObserverServer(server, hubble)
	go func() { log.Fatal(server.Serve(listener)) }()
	fmt.Println("serves")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := happen(hubble.GetEventsChannel(), lines.Text()); err != nil {
			return err
		}
		fmt.Println(lines.Text())
	}
	// It ends with its standard input, and the socket with it.
	return lines.Err()
}

func main() {
	err := errors.New("usage: hubble SOCKET CAPACITY [POD POD], or hubble relay ADDRESS SOCKET [FOLDER]")
	switch arguments := os.Args[1:]; {
	case len(arguments) > 2 && arguments[0] == "relay":
		err = serveRelay(arguments[1], arguments[2], strings.Join(arguments[3:], ""))
	case len(arguments) == 2, len(arguments) == 4:
		var capacity int
		if len(arguments) == 4 {
			web, db = name(web, arguments[2]), name(db, arguments[3])
		}
		if capacity, err = strconv.Atoi(arguments[1]); err == nil {
			err = run(arguments[0], capacity)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}
