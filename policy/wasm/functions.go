package wasm

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/policy/wasm/fuel"
)

// function is one that a guest may import.
type function struct {
	name string
	// params is a letter for each parameter: i for i32, l for i64.
	params string
	does   func(v *vm, s stack) abi.Status
	about  string
	kind   kind
}

type kind uint8

const (
	// early functions work in every stage, also while the guest's runtime
	// initialises itself and while its allocator runs.
	early kind = 1 << iota
	// noResult functions return no status.
	noResult
	// absent functions can be linked, and only say that they are not offered.
	absent
)

// stack holds a call's parameters and takes its result.
type stack []uint64

// u32 is parameter i. The upper half of an i32 on the stack is undefined.
func (s stack) u32(i int) uint32 { return uint32(s[i]) }

func (f *function) signature() (params, results []api.ValueType) {
	for _, p := range f.params {
		t := api.ValueTypeI32
		if p == 'l' {
			t = api.ValueTypeI64
		}
		params = append(params, t)
	}
	if f.kind&noResult == 0 {
		results = []api.ValueType{api.ValueTypeI32}
	}
	return params, results
}

// bind makes the function callable by the engine.
func (f *function) bind() api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, s []uint64) {
		v := vmOf(ctx)
		if v.mod == nil {
			v.attach(mod) // called by the module's start function
		}
		v.owed += fuelPerCall
		status := abi.InternalFailure
		if f.kind&early != 0 || v.stage > stageStart && !v.allocating {
			status = f.does(v, s)
		}
		v.draw(0)
		if f.kind&noResult == 0 {
			s[0] = uint64(status)
		}
	}
}

// lookup finds the function that an import names.
func lookup(i fuel.Import) (*function, bool) {
	var f *function
	switch i.Module {
	case "env":
		f = envFunctions[i.Name]
	case "wasi_snapshot_preview1", "wasi_unstable":
		f = systemFunctions[i.Name]
	}
	return f, f != nil
}

func byName(table []function) map[string]*function {
	m := make(map[string]*function, len(table))
	for i := range table {
		m[table[i].name] = &table[i]
	}
	return m
}

var envFunctions = byName([]function{
	// What a guest says and asks of the host.
	{"proxy_log", "iii", proxyLog, "writes a line to the log", early},
	{"proxy_get_log_level", "i", proxyGetLogLevel, "tells which lines are kept", early},
	{"proxy_get_current_time_nanoseconds", "i", proxyGetTime, "reads the clock", early},
	{"proxy_set_tick_period_milliseconds", "i", proxySetTick, "asks for ticks; 0 ends them", 0},
	{"proxy_get_status", "iii", proxyGetStatus, "tells how a call of the guest's ended", 0},
	{"proxy_get_property", "iiii", proxyGetProperty, "reads a property by its path", 0},
	{"proxy_set_property", "iiii", proxySetProperty, "leaves a property for the policies that follow", 0},
	{"proxy_call_foreign_function", "iiiiii", proxyCallForeign, "calls a function that is this host's own", 0},
	{"proxy_set_effective_context", "i", proxySetContext, "acts for another context", 0},
	{"proxy_done", "", proxyDone, "says that the guest is done after all", 0},

	// Heads and trailers.
	{"proxy_get_header_map_size", "ii", proxyGetHeaderSize, "counts bytes of a head", 0},
	{"proxy_get_header_map_pairs", "iii", proxyGetHeaderPairs, "reads a head", 0},
	{"proxy_set_header_map_pairs", "iii", proxySetHeaderPairs, "replaces a head", 0},
	{"proxy_get_header_map_value", "iiiii", proxyGetHeader, "reads a field", 0},
	{"proxy_add_header_map_value", "iiiii", proxyAddHeader, "adds a field", 0},
	{"proxy_replace_header_map_value", "iiiii", proxyReplaceHeader, "sets a field", 0},
	{"proxy_remove_header_map_value", "iii", proxyRemoveHeader, "removes a field", 0},

	// Bodies and other buffers.
	{"proxy_get_buffer_status", "iii", proxyGetBufferStatus, "tells a buffer's size", 0},
	{"proxy_get_buffer_bytes", "iiiii", proxyGetBuffer, "reads a buffer", 0},
	{"proxy_set_buffer_bytes", "iiiii", proxySetBuffer, "changes a body", 0},
	{"proxy_get_configuration", "ii", proxyGetConfiguration, "reads the configuration (0.1.0)", 0},

	// The course of the exchange.
	{"proxy_send_local_response", "iiiiiiii", proxySendLocalResponse, "answers the request", 0},
	{"proxy_continue_stream", "i", proxyContinueStream, "ends a pause", 0},
	{"proxy_close_stream", "i", proxyCloseStream, "ends the exchange", 0},
	{"proxy_continue_request", "", proxyContinueRequest, "ends a pause of the request (0.1.0)", 0},
	{"proxy_continue_response", "", proxyContinueResponse, "ends a pause of the response (0.1.0)", 0},
	{"proxy_clear_route_cache", "", proxyClearRoute, "asks for the route to be chosen anew (0.1.0)", 0},

	// What the VMs of a tenant or a plugin share.
	{"proxy_get_shared_data", "iiiii", proxyGetShared, "reads a shared value", 0},
	{"proxy_set_shared_data", "iiiii", proxySetShared, "stores a shared value", 0},
	{"proxy_define_metric", "iiii", proxyDefineMetric, "defines a metric", 0},
	{"proxy_increment_metric", "il", proxyIncrementMetric, "adds to a metric", 0},
	{"proxy_record_metric", "il", proxyRecordMetric, "sets a gauge, records a value", 0},
	{"proxy_get_metric", "ii", proxyGetMetric, "reads a metric", 0},

	// Calls to the services that the policy was granted.
	{"proxy_http_call", "iiiiiiiiii", proxyHTTPCall, "asks a service", 0},
	{"proxy_dispatch_http_call", "iiiiiiiiii", proxyHTTPCall, "asks a service, by its other name", 0},
	{"proxy_grpc_call", "iiiiiiiiiiii", proxyGRPCCall, "asks a gRPC service", 0},
	{"proxy_grpc_stream", "iiiiiiiii", proxyGRPCStream, "opens a stream to a gRPC service", 0},
	{"proxy_grpc_send", "iiii", proxyGRPCSend, "sends on a gRPC stream", 0},
	{"proxy_grpc_cancel", "i", proxyGRPCCancel, "cancels a gRPC call", 0},
	{"proxy_grpc_close", "i", proxyGRPCClose, "says that no more is sent on a gRPC stream", 0},

	// The queues of a tenant.
	{"proxy_register_shared_queue", "iii", proxyRegisterQueue, "opens a queue and listens to it", 0},
	{"proxy_resolve_shared_queue", "iiiii", proxyResolveQueue, "finds a queue", 0},
	{"proxy_enqueue_shared_queue", "iii", proxyEnqueue, "sends to a queue", 0},
	{"proxy_dequeue_shared_queue", "iii", proxyDequeue, "takes from a queue", 0},

	// Higress's own. The last links, and says that it is not offered.
	{"proxy_get_upstream_hosts", "ii", proxyGetUpstreamHosts, "lists the service's endpoints (0.2.100)", 0},
	{"proxy_set_upstream_override_host", "ii", proxySetUpstreamHost, "chooses the endpoint (0.2.100)", 0},
	{"proxy_redis_init", "iiiiiii", proxyRedisInit, "prepares commands to Redis (0.2.100)", 0},
	{"proxy_redis_call", "iiiii", proxyRedisCall, "sends a command to Redis (0.2.100)", 0},
	{"proxy_inject_encoded_data_to_filter_chain", "iii", notOffered("proxy_inject_encoded_data_to_filter_chain"), "sends a part of the response early (not offered)", absent},

	// What C++ compilers leave behind.
	{"pthread_equal", "ii", pthreadEqual, "compares threads", early},
	{"emscripten_notify_memory_growth", "i", nothing, "is told of memory growth", early | noResult},
})

// notOffered is a function that can be linked and does nothing but say so.
func notOffered(name string) func(*vm, stack) abi.Status {
	return func(v *vm, _ stack) abi.Status {
		v.policy.log.line(v, abi.Warn, name+" is not offered by this host")
		return abi.Unimplemented
	}
}

func nothing(*vm, stack) abi.Status { return abi.OK }

func pthreadEqual(_ *vm, s stack) abi.Status {
	return abi.Status(flag(s.u32(0) == s.u32(1)))
}

// attach finds what host functions need of an instance.
func (v *vm) attach(mod api.Module) {
	v.mod, v.mem = mod, mod.Memory()
	v.tank = mod.ExportedGlobal(fuel.Global).(api.MutableGlobal)
}

// read returns a piece of the guest's memory, valid until the guest runs.
func (v *vm) read(at, size uint32) ([]byte, bool) { return v.mem.Read(at, size) }

// writable reports whether there is room for a 32-bit number.
func (v *vm) writable(at uint32) bool {
	_, ok := v.mem.Read(at, 4)
	return ok
}

// give copies bytes into memory that the guest allocates for them, and tells it
// where. The pointers are checked first: a guest that gives bad ones is told so
// before anything happens.
func (v *vm) give(data []byte, atPointer, atSize uint32) abi.Status {
	v.drawBytes(len(data))
	return v.hand(data, atPointer, atSize)
}

// hand is give for what is paid for: what the caller had to copy or to compose
// is, before that.
func (v *vm) hand(data []byte, atPointer, atSize uint32) abi.Status {
	if !v.writable(atPointer) || !v.writable(atSize) {
		return abi.InvalidMemoryAccess
	}
	address := uint32(0)
	// SDKs of the old version read from the address of an empty result, too.
	if len(data) > 0 || v.policy.module.version == abi.V010 {
		address = v.allocate(uint32(max(len(data), 1)))
		if address == 0 {
			return abi.InternalFailure
		}
		if !v.mem.Write(address, data) {
			return abi.InvalidMemoryAccess
		}
	}
	v.mem.WriteUint32Le(atPointer, address)
	v.mem.WriteUint32Le(atSize, uint32(len(data)))
	return abi.OK
}

// allocate calls the guest's allocator. It must not be entered twice, so while
// it runs only early functions work.
func (v *vm) allocate(size uint32) uint32 {
	f := v.functions[cbAllocate]
	if f == nil {
		f = v.functions[cbMalloc]
	}
	v.settle()
	v.allocating = true
	v.allocStack[0] = uint64(size)
	err := f.CallWithStack(v, v.allocStack[:])
	v.allocating = false
	if err != nil {
		panic(errAllocate)
	}
	return uint32(v.allocStack[0])
}
