package abi

import "unsafe"

// Where the host leaves what it returns. They are globals because a call that
// returns data comes back into [Allocate], which may grow and so move the
// stack: an address on it would dangle. For the same reason only calls that
// return no data are marked noescape.
var (
	retAddress, retSize, retWord uint32
	retLong                      uint64

	given memory
)

// Allocate gives the host memory for what it is about to return.
func Allocate(n uint32) unsafe.Pointer { return given.allocate(int(n)) }

func taken(s Status) ([]byte, Status) {
	if s != OK {
		return nil, s
	}
	return given.take(retAddress, retSize), OK
}

func takenText(s Status) (string, Status) {
	b, s := taken(s)
	return Text(b), s
}

//go:wasmimport env proxy_log
//go:noescape
func Log(level uint32, message string) Status

//go:wasmimport env proxy_get_log_level
//go:noescape
func proxyGetLogLevel(level *uint32) Status

func LogLevel() (uint32, Status) {
	s := proxyGetLogLevel(&retWord)
	return retWord, s
}

//go:wasmimport env proxy_get_current_time_nanoseconds
//go:noescape
func proxyNow(ns *uint64) Status

func Now() (uint64, Status) {
	s := proxyNow(&retLong)
	return retLong, s
}

//go:wasmimport env proxy_set_tick_period_milliseconds
func SetTickPeriod(ms uint32) Status

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeader(m MapType, name string, address, size *uint32) Status

func GetHeader(m MapType, name string) (string, Status) {
	return takenText(proxyGetHeader(m, name, &retAddress, &retSize))
}

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetHeaders(m MapType, address, size *uint32) Status

func GetHeaders(m MapType) ([]byte, Status) {
	return taken(proxyGetHeaders(m, &retAddress, &retSize))
}

//go:wasmimport env proxy_replace_header_map_value
//go:noescape
func ReplaceHeader(m MapType, name, value string) Status

//go:wasmimport env proxy_add_header_map_value
//go:noescape
func AddHeader(m MapType, name, value string) Status

//go:wasmimport env proxy_remove_header_map_value
//go:noescape
func RemoveHeader(m MapType, name string) Status

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBuffer(t BufferType, start, length uint32, address, size *uint32) Status

func GetBuffer(t BufferType, start, length uint32) ([]byte, Status) {
	return taken(proxyGetBuffer(t, start, length, &retAddress, &retSize))
}

//go:wasmimport env proxy_set_buffer_bytes
//go:noescape
func proxySetBuffer(t BufferType, start, length uint32, data unsafe.Pointer, size uint32) Status

func SetBuffer(t BufferType, start, length uint32, data []byte) Status {
	return proxySetBuffer(t, start, length, unsafe.Pointer(unsafe.SliceData(data)), uint32(len(data)))
}

//go:wasmimport env proxy_send_local_response
//go:noescape
func proxyRespond(code uint32, details string, body unsafe.Pointer, bodySize uint32, headers unsafe.Pointer, headersSize, grpcStatus uint32) Status

// Respond answers the exchange. Headers are encoded pairs.
func Respond(code uint32, details string, body, headers []byte) Status {
	const noGRPCStatus = 1<<32 - 1
	return proxyRespond(code, details, unsafe.Pointer(unsafe.SliceData(body)), uint32(len(body)),
		unsafe.Pointer(unsafe.SliceData(headers)), uint32(len(headers)), noGRPCStatus)
}

//go:wasmimport env proxy_get_property
func proxyGetProperty(path string, address, size *uint32) Status

// GetProperty reads a property; its path's segments are divided by zero bytes.
func GetProperty(path string) (string, Status) {
	return takenText(proxyGetProperty(path, &retAddress, &retSize))
}

//go:wasmimport env proxy_set_property
//go:noescape
func SetProperty(path, value string) Status

//go:wasmimport env proxy_get_shared_data
func proxyGetShared(key string, address, size, cas *uint32) Status

func GetShared(key string) ([]byte, uint32, Status) {
	b, s := taken(proxyGetShared(key, &retAddress, &retSize, &retWord))
	return b, retWord, s
}

//go:wasmimport env proxy_set_shared_data
//go:noescape
func proxySetShared(key string, value unsafe.Pointer, size, cas uint32) Status

func SetShared(key string, value []byte, cas uint32) Status {
	return proxySetShared(key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), cas)
}

//go:wasmimport env proxy_define_metric
//go:noescape
func proxyDefineMetric(t MetricType, name string, id *uint32) Status

func DefineMetric(t MetricType, name string) (uint32, Status) {
	s := proxyDefineMetric(t, name, &retWord)
	return retWord, s
}

//go:wasmimport env proxy_increment_metric
func IncrementMetric(id uint32, by int64) Status

//go:wasmimport env proxy_record_metric
func RecordMetric(id uint32, value uint64) Status

//go:wasmimport env proxy_get_metric
//go:noescape
func proxyGetMetric(id uint32, value *uint64) Status

func GetMetric(id uint32) (uint64, Status) {
	s := proxyGetMetric(id, &retLong)
	return retLong, s
}

//go:wasmimport env proxy_http_call
//go:noescape
func proxyHTTPCall(service string, head unsafe.Pointer, headSize uint32, body unsafe.Pointer, bodySize uint32, trailers unsafe.Pointer, trailersSize, ms uint32, token *uint32) Status

// HTTPCall asks a service. The head is encoded pairs.
func HTTPCall(service string, head, body []byte, ms uint32) (token uint32, s Status) {
	s = proxyHTTPCall(service, unsafe.Pointer(unsafe.SliceData(head)), uint32(len(head)),
		unsafe.Pointer(unsafe.SliceData(body)), uint32(len(body)), nil, 0, ms, &retWord)
	return retWord, s
}

//go:wasmimport env proxy_grpc_call
//go:noescape
func proxyGRPCCall(service, of, method string, metadata unsafe.Pointer, metadataSize uint32, message unsafe.Pointer, messageSize, ms uint32, token *uint32) Status

// GRPCCall asks a service. The metadata is encoded pairs.
func GRPCCall(service, of, method string, metadata, message []byte, ms uint32) (token uint32, s Status) {
	s = proxyGRPCCall(service, of, method, unsafe.Pointer(unsafe.SliceData(metadata)), uint32(len(metadata)),
		unsafe.Pointer(unsafe.SliceData(message)), uint32(len(message)), ms, &retWord)
	return retWord, s
}

//go:wasmimport env proxy_grpc_stream
//go:noescape
func proxyGRPCStream(service, of, method string, metadata unsafe.Pointer, metadataSize uint32, token *uint32) Status

// GRPCStream opens a stream to a service.
func GRPCStream(service, of, method string, metadata []byte) (token uint32, s Status) {
	s = proxyGRPCStream(service, of, method, unsafe.Pointer(unsafe.SliceData(metadata)), uint32(len(metadata)), &retWord)
	return retWord, s
}

//go:wasmimport env proxy_grpc_send
//go:noescape
func proxyGRPCSend(token uint32, message unsafe.Pointer, size, end uint32) Status

// GRPCSend sends on a stream; end: it is the last message.
func GRPCSend(token uint32, message []byte, end bool) Status {
	last := uint32(0)
	if end {
		last = 1
	}
	return proxyGRPCSend(token, unsafe.Pointer(unsafe.SliceData(message)), uint32(len(message)), last)
}

//go:wasmimport env proxy_grpc_close
func GRPCClose(token uint32) Status

//go:wasmimport env proxy_grpc_cancel
func GRPCCancel(token uint32) Status

//go:wasmimport env proxy_register_shared_queue
//go:noescape
func proxyRegisterQueue(name string, token *uint32) Status

func RegisterQueue(name string) (token uint32, s Status) {
	s = proxyRegisterQueue(name, &retWord)
	return retWord, s
}

//go:wasmimport env proxy_resolve_shared_queue
//go:noescape
func proxyResolveQueue(vm, name string, token *uint32) Status

// ResolveQueue finds a queue of sandboxes that have no vm_id.
func ResolveQueue(name string) (token uint32, s Status) {
	s = proxyResolveQueue("", name, &retWord)
	return retWord, s
}

//go:wasmimport env proxy_enqueue_shared_queue
//go:noescape
func proxyEnqueue(token uint32, message unsafe.Pointer, size uint32) Status

func Enqueue(token uint32, message []byte) Status {
	return proxyEnqueue(token, unsafe.Pointer(unsafe.SliceData(message)), uint32(len(message)))
}

//go:wasmimport env proxy_dequeue_shared_queue
func proxyDequeue(token uint32, address, size *uint32) Status

func Dequeue(token uint32) ([]byte, Status) { return taken(proxyDequeue(token, &retAddress, &retSize)) }

//go:wasmimport env proxy_get_status
func proxyGetStatus(code, address, size *uint32) Status

// CallStatus tells why there is no answer.
func CallStatus() (code uint32, message string) {
	message, _ = takenText(proxyGetStatus(&retWord, &retAddress, &retSize))
	return retWord, message
}

//go:wasmimport env proxy_set_effective_context
func SetEffectiveContext(id uint32) Status

//go:wasmimport env proxy_continue_stream
func proxyContinueStream(stream uint32) Status

// ContinueStream ends a pause of the request, or of the response.
func ContinueStream(response bool) Status {
	if response {
		return proxyContinueStream(1)
	}
	return proxyContinueStream(0)
}

//go:wasmimport env proxy_call_foreign_function
func proxyForeign(name string, args unsafe.Pointer, size uint32, address, returned *uint32) Status

func Foreign(name string, args []byte) ([]byte, Status) {
	return taken(proxyForeign(name, unsafe.Pointer(unsafe.SliceData(args)), uint32(len(args)), &retAddress, &retSize))
}

// With has no place here: in a sandbox there is a real host. It is there so
// that tests can be vetted for wasip1 as well.
func With(Host, func()) { panic("sdk: plugins are tested outside of sandboxes, by plain go test") }
