package main

import (
	"encoding/hex"
	"fmt"
	"log"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	data "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	als "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// When all entries of this set began: printed, they are the same every time.
var began = timestamppb.New(time.Date(2026, 11, 22, 12, 0, 3, 500000000, time.UTC))

// The Envoy of the pod 10.0.0.1.
var sender = &als.StreamAccessLogsMessage_Identifier{
	Node: &core.Node{
		Id:      "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local",
		Cluster: "web.shop",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"NAME":          structpb.NewStringValue("web-1"),
			"NAMESPACE":     structpb.NewStringValue("shop"),
			"WORKLOAD_NAME": structpb.NewStringValue("web"),
			"OWNER":         structpb.NewStringValue("kubernetes://apis/apps/v1/namespaces/shop/deployments/web"),
		}},
		Locality:             &core.Locality{Region: "r", Zone: "z"},
		UserAgentName:        "envoy",
		UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: "1.36.2"},
	},
	LogName: "kinds",
}

func outbound(service string) *data.AccessLogCommon {
	return &data.AccessLogCommon{
		DownstreamRemoteAddress:       socket("10.0.0.1", 40000),
		DownstreamDirectRemoteAddress: socket("10.0.0.1", 40000),
		DownstreamLocalAddress:        socket("10.96.0.7", 80),
		UpstreamRemoteAddress:         socket("10.0.0.2", 8080),
		UpstreamLocalAddress:          socket("10.0.0.1", 50000),
		UpstreamCluster:               "outbound|80||" + service + ".shop.svc.cluster.local",
		StartTime:                     began,
		TimeToLastDownstreamTxByte:    durationpb.New(20 * time.Millisecond),
		Duration:                      durationpb.New(20 * time.Millisecond),
		UpstreamRequestAttemptCount:   1,
		UpstreamWireBytesSent:         100,
		UpstreamWireBytesReceived:     1000,
		DownstreamWireBytesSent:       1000,
		DownstreamWireBytesReceived:   100,
		RouteName:                     "default",
		StreamId:                      "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
		AccessLogType:                 data.AccessLogType_DownstreamEnd,
		SampleRate:                    1,
		CustomTags:                    map[string]string{"team": "shop"},
	}
}

func connection(service string) *data.AccessLogCommon {
	common := outbound(service)
	common.AccessLogType = data.AccessLogType_TcpConnectionEnd
	return common
}

// What the logger for HTTP makes of a connection.
func connectionAsRequest(logType data.AccessLogType) *data.HTTPAccessLogEntry {
	common := connection("cache")
	common.AccessLogType = logType
	return &data.HTTPAccessLogEntry{
		CommonProperties: common,
		Request:          &data.HTTPRequestProperties{RequestBodyBytes: 7},
		Response:         &data.HTTPResponseProperties{ResponseBodyBytes: 9},
	}
}

func request(path string) *data.HTTPAccessLogEntry {
	return &data.HTTPAccessLogEntry{
		CommonProperties: outbound("db"),
		ProtocolVersion:  data.HTTPAccessLogEntry_HTTP11,
		Request: &data.HTTPRequestProperties{
			RequestMethod: core.RequestMethod_GET, Scheme: "http", Authority: "db.shop", Path: path,
			UserAgent: "curl", RequestHeadersBytes: 70, RequestBodyBytes: 5,
		},
		Response: &data.HTTPResponseProperties{
			ResponseCode: wrapperspb.UInt32(200), ResponseHeadersBytes: 20, ResponseBodyBytes: 180, ResponseCodeDetails: "via_upstream",
		},
	}
}

func with(entry *data.HTTPAccessLogEntry, change func(*data.HTTPAccessLogEntry)) *data.HTTPAccessLogEntry {
	change(entry)
	return entry
}

func peer(uris ...string) *data.TLSProperties_CertificateProperties {
	properties := &data.TLSProperties_CertificateProperties{Subject: "CN=peer"}
	for _, uri := range uris {
		properties.SubjectAltName = append(properties.SubjectAltName,
			&data.TLSProperties_CertificateProperties_SubjectAltName{San: &data.TLSProperties_CertificateProperties_SubjectAltName_Uri{Uri: uri}})
	}
	return properties
}

// The response flags by the codes that Envoy's own log formats have for them.
var flags = []struct {
	code string
	set  *data.ResponseFlags
}{
	{"LH", &data.ResponseFlags{FailedLocalHealthcheck: true}},
	{"UH", &data.ResponseFlags{NoHealthyUpstream: true}},
	{"UT", &data.ResponseFlags{UpstreamRequestTimeout: true}},
	{"LR", &data.ResponseFlags{LocalReset: true}},
	{"UR", &data.ResponseFlags{UpstreamRemoteReset: true}},
	{"UF", &data.ResponseFlags{UpstreamConnectionFailure: true}},
	{"UC", &data.ResponseFlags{UpstreamConnectionTermination: true}},
	{"UO", &data.ResponseFlags{UpstreamOverflow: true}},
	{"NR", &data.ResponseFlags{NoRouteFound: true}},
	{"DI", &data.ResponseFlags{DelayInjected: true}},
	{"FI", &data.ResponseFlags{FaultInjected: true}},
	{"RL", &data.ResponseFlags{RateLimited: true}},
	{"UAEX", &data.ResponseFlags{UnauthorizedDetails: &data.ResponseFlags_Unauthorized{Reason: data.ResponseFlags_Unauthorized_EXTERNAL_SERVICE}}},
	{"RLSE", &data.ResponseFlags{RateLimitServiceError: true}},
	{"DC", &data.ResponseFlags{DownstreamConnectionTermination: true}},
	{"URX", &data.ResponseFlags{UpstreamRetryLimitExceeded: true}},
	{"SI", &data.ResponseFlags{StreamIdleTimeout: true}},
	{"IH", &data.ResponseFlags{InvalidEnvoyRequestHeaders: true}},
	{"DPE", &data.ResponseFlags{DownstreamProtocolError: true}},
	{"UMSDR", &data.ResponseFlags{UpstreamMaxStreamDurationReached: true}},
	{"RFCF", &data.ResponseFlags{ResponseFromCacheFilter: true}},
	{"NFCF", &data.ResponseFlags{NoFilterConfigFound: true}},
	{"DT", &data.ResponseFlags{DurationTimeout: true}},
	{"UPE", &data.ResponseFlags{UpstreamProtocolError: true}},
	{"NC", &data.ResponseFlags{NoClusterFound: true}},
	{"OM", &data.ResponseFlags{OverloadManager: true}},
	{"DF", &data.ResponseFlags{DnsResolutionFailure: true}},
	{"DR", &data.ResponseFlags{DownstreamRemoteReset: true}},
}

type kind struct {
	name string
	http *data.HTTPAccessLogEntry
	tcp  *data.TCPAccessLogEntry
}

func kinds() []kind {
	all := []kind{
		{name: "http1", http: request("/orders/17?token=geheim#part")},
		{name: "http2", http: with(request("/two"), func(e *data.HTTPAccessLogEntry) {
			e.ProtocolVersion = data.HTTPAccessLogEntry_HTTP2
			e.Request.RequestMethod = core.RequestMethod_POST
			e.Response.ResponseCode = wrapperspb.UInt32(201)
		})},
		{name: "http3", http: with(request("/three"), func(e *data.HTTPAccessLogEntry) {
			e.ProtocolVersion = data.HTTPAccessLogEntry_HTTP3
			e.Request.RequestMethod = core.RequestMethod_PATCH
		})},
		{name: "http1.0", http: with(request("/zero"), func(e *data.HTTPAccessLogEntry) { e.ProtocolVersion = data.HTTPAccessLogEntry_HTTP10 })},
		{name: "grpc", http: with(request("/shop.v1.Orders/Get"), func(e *data.HTTPAccessLogEntry) {
			e.ProtocolVersion = data.HTTPAccessLogEntry_HTTP2
			e.Request.RequestMethod = core.RequestMethod_POST
			e.Request.RequestHeaders = map[string]string{"content-type": "application/grpc+proto"}
			e.Response.ResponseTrailers = map[string]string{"grpc-status": "14", "grpc-message": "geheim"}
		})},
		{name: "headers", http: with(request("/headers"), func(e *data.HTTPAccessLogEntry) {
			e.Request.RequestHeaders = map[string]string{"authorization": "Bearer geheim", "cookie": "session=geheim", "x-request-id": "geheim"}
			e.Request.Referer, e.Request.ForwardedFor = "https://geheim/", "192.0.2.77"
			e.Response.ResponseHeaders = map[string]string{"set-cookie": "geheim"}
		})},
		{name: "rewritten", http: with(request("/internal/7"), func(e *data.HTTPAccessLogEntry) { e.Request.OriginalPath = "/public/7" })},
		{name: "inbound", http: with(request("/in"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamCluster = "inbound|8080||"
			e.CommonProperties.UpstreamRemoteAddress = socket("10.0.0.1", 8080)
			e.CommonProperties.DownstreamDirectRemoteAddress = socket("10.9.9.9", 33333)
			e.CommonProperties.DownstreamLocalAddress = socket("10.0.0.1", 8080)
			e.CommonProperties.TlsProperties = &data.TLSProperties{
				TlsVersion: data.TLSProperties_TLSv1_3, TlsCipherSuite: wrapperspb.UInt32(0x1301), TlsSniHostname: "outbound_.80_._.web.shop.svc.cluster.local",
				LocalCertificateProperties: peer("spiffe://cluster.local/ns/shop/sa/web"),
				PeerCertificateProperties:  peer("spiffe://cluster.local/ns/bank/sa/teller", "spiffe://cluster.local/ns/other/sa/second"),
				TlsSessionId:               "00ff", Ja3Fingerprint: "ja3",
			}
		})},
		{name: "denied", http: with(request("/denied"), func(e *data.HTTPAccessLogEntry) {
			e.Response.ResponseCode, e.Response.ResponseCodeDetails = wrapperspb.UInt32(403), "rbac_access_denied_matched_policy[ns[shop]-policy[deny]-rule[0]]"
		})},
		{name: "tls", http: with(request("/tls"), func(e *data.HTTPAccessLogEntry) {
			e.Response.ResponseCode = wrapperspb.UInt32(503)
			e.CommonProperties.ResponseFlags = &data.ResponseFlags{UpstreamConnectionFailure: true}
			e.CommonProperties.UpstreamTransportFailureReason = "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end"
		})},
		{name: "refused", http: with(request("/refused"), func(e *data.HTTPAccessLogEntry) {
			e.Response.ResponseCode = wrapperspb.UInt32(503)
			e.CommonProperties.ResponseFlags = &data.ResponseFlags{UpstreamConnectionFailure: true}
			e.CommonProperties.UpstreamTransportFailureReason = "delayed_connect_error:_111"
		})},
		{name: "unreached", http: with(request("/unreached"), func(e *data.HTTPAccessLogEntry) {
			e.Request.Authority = "db:5000"
			e.Response.ResponseCode = wrapperspb.UInt32(503)
			e.CommonProperties.ResponseFlags = &data.ResponseFlags{NoHealthyUpstream: true}
			e.CommonProperties.UpstreamCluster, e.CommonProperties.UpstreamRemoteAddress = "", nil
		})},
		{name: "tunnel", http: with(request("/tunnel"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamCluster = "inbound-vip|80|http|db.shop.svc.cluster.local"
			e.CommonProperties.UpstreamRemoteAddress = &core.Address{Address: &core.Address_EnvoyInternalAddress{EnvoyInternalAddress: &core.EnvoyInternalAddress{
				AddressNameSpecifier: &core.EnvoyInternalAddress_ServerListenerName{ServerListenerName: "connect_originate"}, EndpointId: "10.0.0.2:8080"}}}
		})},
		{name: "ipv6", http: with(request("/six"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamRemoteAddress = socket("fd00::2", 8080)
		})},
		{name: "pipe", http: with(request("/pipe"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamRemoteAddress = &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: "/run/socket"}}}
		})},
		{name: "passthrough", http: with(request("/out"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamCluster = "PassthroughCluster"
			e.CommonProperties.UpstreamRemoteAddress = socket("192.0.2.9", 443)
			e.Request.Authority = "api.example.com:443"
		})},
		{name: "no-answer", http: with(request("/none"), func(e *data.HTTPAccessLogEntry) {
			e.Response = nil
			e.CommonProperties.ResponseFlags = &data.ResponseFlags{DownstreamConnectionTermination: true}
		})},
		{name: "last-byte", http: with(request("/last"), func(e *data.HTTPAccessLogEntry) { e.CommonProperties.Duration = nil })},
		{name: "unknown-size", http: with(request("/size"), func(e *data.HTTPAccessLogEntry) {
			e.CommonProperties.UpstreamWireBytesSent, e.CommonProperties.UpstreamWireBytesReceived = 0, 0
		})},
		{name: "retried", http: with(request("/retried"), func(e *data.HTTPAccessLogEntry) { e.CommonProperties.UpstreamRequestAttemptCount = 3 })},
		{name: "unfinished", http: with(request("/unfinished"), func(e *data.HTTPAccessLogEntry) { e.CommonProperties.IntermediateLogEntry = true })},
		{name: "more", http: with(request("/more"), func(e *data.HTTPAccessLogEntry) {
			state, err := anypb.New(wrapperspb.String("geheim"))
			if err != nil {
				log.Fatal(err)
			}
			e.CommonProperties.FilterStateObjects = map[string]*anypb.Any{"state": state}
			e.CommonProperties.Metadata = &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"istio_authn": {Fields: map[string]*structpb.Value{
				"source.principal": structpb.NewStringValue("cluster.local/ns/shop/sa/web")}}}}
		})},
		{name: "empty-http", http: &data.HTTPAccessLogEntry{}},
		{name: "twin-http", http: connectionAsRequest(data.AccessLogType_TcpConnectionEnd)},
		{name: "twin-http-untyped", http: connectionAsRequest(data.AccessLogType_NotSet)},
		{name: "twin-tcp", tcp: &data.TCPAccessLogEntry{
			CommonProperties:     outbound("db"),
			ConnectionProperties: &data.ConnectionProperties{ReceivedBytes: 75, SentBytes: 200},
		}},
		{name: "unfinished-tcp", tcp: &data.TCPAccessLogEntry{CommonProperties: func() *data.AccessLogCommon {
			common := connection("cache")
			common.AccessLogType, common.IntermediateLogEntry = data.AccessLogType_TcpUpstreamConnected, true
			return common
		}()}},
		{name: "tcp", tcp: &data.TCPAccessLogEntry{
			CommonProperties:     connection("cache"),
			ConnectionProperties: &data.ConnectionProperties{ReceivedBytes: 7, SentBytes: 9},
		}},
		{name: "tcp-failed", tcp: &data.TCPAccessLogEntry{CommonProperties: func() *data.AccessLogCommon {
			common := connection("queue")
			common.ResponseFlags = &data.ResponseFlags{UpstreamConnectionFailure: true}
			common.DownstreamTransportFailureReason = "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"
			common.ConnectionTerminationDetails = "rbac_access_denied_matched_policy[none]"
			return common
		}()}},
		{name: "empty-tcp", tcp: &data.TCPAccessLogEntry{}},
	}
	for _, flag := range flags {
		all = append(all, kind{name: "flag-" + flag.code, http: with(request("/flag/"+flag.code), func(e *data.HTTPAccessLogEntry) {
			e.Response.ResponseCode = wrapperspb.UInt32(503)
			e.CommonProperties.ResponseFlags = flag.set
		})})
	}
	return all
}

func (k kind) message() *als.StreamAccessLogsMessage {
	if k.tcp != nil {
		return &als.StreamAccessLogsMessage{LogEntries: &als.StreamAccessLogsMessage_TcpLogs{
			TcpLogs: &als.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: []*data.TCPAccessLogEntry{k.tcp}}}}
	}
	return &als.StreamAccessLogsMessage{LogEntries: &als.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &als.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: []*data.HTTPAccessLogEntry{k.http}}}}
}

// A message a line: what of, and its bytes. The first one says who sends the stream.
func printKinds() {
	print := func(name string, message proto.Message) {
		bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name, hex.EncodeToString(bytes))
	}
	print("sender", &als.StreamAccessLogsMessage{Identifier: sender})
	for _, kind := range kinds() {
		print(kind.name, kind.message())
	}
}

func sendKinds(address string) {
	messages := []*als.StreamAccessLogsMessage{{Identifier: sender}}
	for _, kind := range kinds() {
		messages = append(messages, kind.message())
	}
	send(address, messages)
	fmt.Println(len(messages) - 1)
}
