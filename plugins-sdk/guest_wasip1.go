package sdk

import (
	"unsafe"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// guest is the sandbox that this program is. The host calls in from outside of
// Go, so there is nothing but a global to find it by.
var guest = NewVM(Plugin{})

// running is the sandbox whose method runs.
func running() *VM { return guest }

func register(p Plugin) {
	if guest.plugin.make != nil {
		panic("sdk: Register was called twice")
	}
	guest.plugin = p
}

// What the host calls. A callback that is not here is one that the host skips.

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func onMemoryAllocate(size uint32) unsafe.Pointer { return abi.Allocate(size) }

//go:wasmexport proxy_on_context_create
func onContextCreate(id, root uint32) { guest.OnContextCreate(id, root) }

//go:wasmexport proxy_on_vm_start
func onVMStart(_, _ uint32) bool { return true }

//go:wasmexport proxy_on_configure
func onConfigure(root, size uint32) bool { return guest.OnConfigure(root, int(size)) }

//go:wasmexport weir_config_schema
func configSchema() {
	if guest.plugin.schema == nil {
		return
	}
	if schema := guest.plugin.schema(); schema != nil {
		abi.Foreign("weir.schema", schema)
	}
}

//go:wasmexport proxy_on_tick
func onTick(root uint32) { guest.OnTick(root) }

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(id, _, end uint32) uint32 {
	return uint32(guest.OnRequestHeaders(id, end != 0))
}

//go:wasmexport proxy_on_request_body
func onRequestBody(id, size, end uint32) uint32 {
	return uint32(guest.OnRequestBody(id, int(size), end != 0))
}

//go:wasmexport proxy_on_request_trailers
func onRequestTrailers(id, _ uint32) uint32 { return uint32(guest.OnRequestTrailers(id)) }

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(id, _, end uint32) uint32 {
	return uint32(guest.OnResponseHeaders(id, end != 0))
}

//go:wasmexport proxy_on_response_body
func onResponseBody(id, size, end uint32) uint32 {
	return uint32(guest.OnResponseBody(id, int(size), end != 0))
}

//go:wasmexport proxy_on_response_trailers
func onResponseTrailers(id, _ uint32) uint32 { return uint32(guest.OnResponseTrailers(id)) }

//go:wasmexport proxy_on_http_call_response
func onHTTPCallResponse(_, token, fields, size, _ uint32) {
	guest.OnHTTPCallResponse(token, int(fields), int(size))
}

//go:wasmexport proxy_on_grpc_receive
func onGRPCReceive(_, token, size uint32) { guest.OnGRPCReceive(token, int(size)) }

//go:wasmexport proxy_on_grpc_receive_initial_metadata
func onGRPCInitialMetadata(_, token, _ uint32) { guest.OnGRPCInitialMetadata(token) }

//go:wasmexport proxy_on_grpc_receive_trailing_metadata
func onGRPCTrailingMetadata(_, token, _ uint32) { guest.OnGRPCTrailingMetadata(token) }

//go:wasmexport proxy_on_grpc_close
func onGRPCClose(_, token, code uint32) { guest.OnGRPCClose(token, code) }

//go:wasmexport proxy_on_queue_ready
func onQueueReady(root, token uint32) { guest.OnQueueReady(root, token) }

//go:wasmexport proxy_on_log
func onLog(id uint32) { guest.OnLog(id) }

//go:wasmexport proxy_on_delete
func onDelete(id uint32) { guest.OnDelete(id) }
