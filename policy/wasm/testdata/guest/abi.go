// A guest that speaks proxy-wasm without an SDK, so that tests see the host
// alone. What it does is said by its configuration and by the field x-do.
package main

import "unsafe"

//go:wasmimport env proxy_log
func proxyLog(level uint32, p unsafe.Pointer, n uint32) uint32

//go:wasmimport env proxy_get_log_level
func proxyGetLogLevel(out unsafe.Pointer) uint32

//go:wasmimport env proxy_get_current_time_nanoseconds
func proxyGetTime(out unsafe.Pointer) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func proxySetTick(ms uint32) uint32

//go:wasmimport env proxy_get_property
func proxyGetProperty(p unsafe.Pointer, n uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_set_property
func proxySetProperty(p unsafe.Pointer, n uint32, v unsafe.Pointer, vn uint32) uint32

//go:wasmimport env proxy_call_foreign_function
func proxyCallForeign(p unsafe.Pointer, n uint32, a unsafe.Pointer, an uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_set_effective_context
func proxySetContext(id uint32) uint32

//go:wasmimport env proxy_get_header_map_size
func proxyGetHeaderSize(m uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetPairs(m uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_set_header_map_pairs
func proxySetPairs(m uint32, p unsafe.Pointer, n uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeader(m uint32, p unsafe.Pointer, n uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeader(m uint32, p unsafe.Pointer, n uint32, v unsafe.Pointer, vn uint32) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxyReplaceHeader(m uint32, p unsafe.Pointer, n uint32, v unsafe.Pointer, vn uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveHeader(m uint32, p unsafe.Pointer, n uint32) uint32

//go:wasmimport env proxy_get_buffer_status
func proxyGetBufferStatus(b uint32, outN, outFlags unsafe.Pointer) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBuffer(b, start, n uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_set_buffer_bytes
func proxySetBuffer(b, start, n uint32, p unsafe.Pointer, pn uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(status uint32, d unsafe.Pointer, dn uint32, b unsafe.Pointer, bn uint32, h unsafe.Pointer, hn uint32, grpc int32) uint32

//go:wasmimport env proxy_continue_stream
func proxyContinueStream(stream uint32) uint32

//go:wasmimport env proxy_close_stream
func proxyCloseStream(stream uint32) uint32

//go:wasmimport env proxy_get_shared_data
func proxyGetShared(p unsafe.Pointer, n uint32, outP, outN, outCAS unsafe.Pointer) uint32

//go:wasmimport env proxy_set_shared_data
func proxySetShared(p unsafe.Pointer, n uint32, v unsafe.Pointer, vn uint32, cas uint32) uint32

//go:wasmimport env proxy_define_metric
func proxyDefineMetric(kind uint32, p unsafe.Pointer, n uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_increment_metric
func proxyIncrementMetric(id uint32, by int64) uint32

//go:wasmimport env proxy_record_metric
func proxyRecordMetric(id uint32, value uint64) uint32

//go:wasmimport env proxy_get_metric
func proxyGetMetric(id uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_http_call
func proxyHTTPCall(u unsafe.Pointer, un uint32, h unsafe.Pointer, hn uint32, b unsafe.Pointer, bn uint32, t unsafe.Pointer, tn, ms uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_redis_init
func proxyRedisInit(s unsafe.Pointer, sn uint32, u unsafe.Pointer, un uint32, p unsafe.Pointer, pn, ms uint32) uint32

//go:wasmimport env proxy_redis_call
func proxyRedisCall(s unsafe.Pointer, sn uint32, q unsafe.Pointer, qn uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_resolve_shared_queue
func proxyResolveQueue(v unsafe.Pointer, vn uint32, p unsafe.Pointer, n uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_register_shared_queue
func proxyRegisterQueue(p unsafe.Pointer, n uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_enqueue_shared_queue
func proxyEnqueue(token uint32, p unsafe.Pointer, n uint32) uint32

//go:wasmimport env proxy_dequeue_shared_queue
func proxyDequeue(token uint32, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_get_status
func proxyGetStatus(out, outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_grpc_call
func proxyGRPCCall(u unsafe.Pointer, un uint32, s unsafe.Pointer, sn uint32, m unsafe.Pointer, mn uint32, h unsafe.Pointer, hn uint32, b unsafe.Pointer, bn, ms uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_grpc_stream
func proxyGRPCStream(u unsafe.Pointer, un uint32, s unsafe.Pointer, sn uint32, m unsafe.Pointer, mn uint32, h unsafe.Pointer, hn uint32, out unsafe.Pointer) uint32

//go:wasmimport env proxy_grpc_send
func proxyGRPCSend(token uint32, p unsafe.Pointer, n, end uint32) uint32

//go:wasmimport env proxy_grpc_close
func proxyGRPCClose(token uint32) uint32

//go:wasmimport env proxy_grpc_cancel
func proxyGRPCCancel(token uint32) uint32

//go:wasmimport env proxy_get_upstream_hosts
func proxyGetUpstreamHosts(outP, outN unsafe.Pointer) uint32

//go:wasmimport env proxy_set_upstream_override_host
func proxySetUpstreamHost(p unsafe.Pointer, n uint32) uint32

func ptr(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

// What the host allocates is kept until the callback after the next: enough for
// a guest that copies what it wants to keep.
var kept [64][]byte
var next int

//go:wasmexport proxy_on_memory_allocate
func allocate(n uint32) unsafe.Pointer {
	if slow {
		for {
		}
	}
	if reenter {
		logf(2, "allocating")
		entered = proxyGetHeaderSize(0, unsafe.Pointer(&outN))
	}
	i := next % len(kept)
	next++
	if uint32(cap(kept[i])) < n {
		kept[i] = make([]byte, max(n, 64))
	}
	return unsafe.Pointer(unsafe.SliceData(kept[i][:n]))
}

// What host functions write to.
var (
	outP    unsafe.Pointer
	outN    uint32
	outNum  uint64
	slow    bool
	reenter bool
	entered uint32
)

func out() string { return unsafe.String((*byte)(outP), outN) }

func log(level uint32, s string) { proxyLog(level, ptr(s), uint32(len(s))) }

func logf(level uint32, s string) { log(level, s) }

func header(m uint32, name string) (string, uint32) {
	outP, outN = nil, 0
	s := proxyGetHeader(m, ptr(name), uint32(len(name)), unsafe.Pointer(&outP), unsafe.Pointer(&outN))
	return out(), s
}

func add(m uint32, name, value string) uint32 {
	return proxyAddHeader(m, ptr(name), uint32(len(name)), ptr(value), uint32(len(value)))
}

func set(m uint32, name, value string) uint32 {
	return proxyReplaceHeader(m, ptr(name), uint32(len(name)), ptr(value), uint32(len(value)))
}

func remove(m uint32, name string) uint32 {
	return proxyRemoveHeader(m, ptr(name), uint32(len(name)))
}

func property(path string) (string, uint32) {
	outP, outN = nil, 0
	s := proxyGetProperty(ptr(path), uint32(len(path)), unsafe.Pointer(&outP), unsafe.Pointer(&outN))
	return out(), s
}

func buffer(b, start, n uint32) (string, uint32) {
	outP, outN = nil, 0
	s := proxyGetBuffer(b, start, n, unsafe.Pointer(&outP), unsafe.Pointer(&outN))
	return out(), s
}

func setBuffer(b, start, n uint32, data string) uint32 {
	return proxySetBuffer(b, start, n, ptr(data), uint32(len(data)))
}

func foreign(name, args string) uint32 {
	return proxyCallForeign(ptr(name), uint32(len(name)), ptr(args), uint32(len(args)), unsafe.Pointer(&outP), unsafe.Pointer(&outN))
}

func reply(status uint32, body, headers string) uint32 {
	const details = "because"
	return proxySendLocalResponse(status, ptr(details), uint32(len(details)), ptr(body), uint32(len(body)), ptr(headers), uint32(len(headers)), -1)
}
