//go:build !wasip1

package abi

import "sync"

// A plugin speaks to "the" host, as it does in its sandbox: the one that holds
// the floor.
var (
	floor sync.Mutex
	host  Host
)

// With calls f while h is the host. Calls from several goroutines take turns.
func With(h Host, f func()) {
	floor.Lock()
	defer floor.Unlock()
	host = h
	defer func() { host = nil }()
	f()
}

// current panics outside of With: a plugin asked its host for something
// before it was started, which no host permits either.
func current() Host {
	if host == nil {
		panic("sdk: there is no host here; start the plugin by package policytest, and call the host from its handler")
	}
	return host
}

func Log(level uint32, message string) Status           { return current().Log(level, message) }
func LogLevel() (uint32, Status)                        { return current().LogLevel() }
func Now() (uint64, Status)                             { return current().Now() }
func SetTickPeriod(ms uint32) Status                    { return current().SetTickPeriod(ms) }
func GetHeader(m MapType, name string) (string, Status) { return current().GetHeader(m, name) }
func GetHeaders(m MapType) ([]byte, Status)             { return current().GetHeaders(m) }
func RemoveHeader(m MapType, name string) Status        { return current().RemoveHeader(m, name) }
func GetProperty(path string) (string, Status)          { return current().GetProperty(path) }
func SetProperty(path, value string) Status             { return current().SetProperty(path, value) }
func GetShared(key string) ([]byte, uint32, Status)     { return current().GetShared(key) }
func IncrementMetric(id uint32, by int64) Status        { return current().IncrementMetric(id, by) }
func RecordMetric(id uint32, value uint64) Status       { return current().RecordMetric(id, value) }
func GetMetric(id uint32) (uint64, Status)              { return current().GetMetric(id) }
func Foreign(name string, args []byte) ([]byte, Status) { return current().Foreign(name, args) }

func RegisterQueue(name string) (uint32, Status)  { return current().RegisterQueue(name) }
func ResolveQueue(name string) (uint32, Status)   { return current().ResolveQueue(name) }
func Enqueue(token uint32, message []byte) Status { return current().Enqueue(token, message) }
func Dequeue(token uint32) ([]byte, Status)       { return current().Dequeue(token) }

func GRPCCall(service, of, method string, metadata, message []byte, ms uint32) (uint32, Status) {
	return current().GRPCCall(service, of, method, metadata, message, ms)
}

func GRPCStream(service, of, method string, metadata []byte) (uint32, Status) {
	return current().GRPCStream(service, of, method, metadata)
}

func GRPCSend(token uint32, message []byte, end bool) Status {
	return current().GRPCSend(token, message, end)
}

func GRPCClose(token uint32) Status  { return current().GRPCClose(token) }
func GRPCCancel(token uint32) Status { return current().GRPCCancel(token) }

func SetEffectiveContext(id uint32) Status { return current().SetEffectiveContext(id) }
func ContinueStream(response bool) Status  { return current().ContinueStream(response) }
func CallStatus() (uint32, string)         { return current().CallStatus() }

func HTTPCall(service string, head, body []byte, ms uint32) (uint32, Status) {
	return current().HTTPCall(service, head, body, ms)
}

func ReplaceHeader(m MapType, name, value string) Status {
	return current().ReplaceHeader(m, name, value)
}

func AddHeader(m MapType, name, value string) Status {
	return current().AddHeader(m, name, value)
}

func GetBuffer(t BufferType, start, length uint32) ([]byte, Status) {
	return current().GetBuffer(t, start, length)
}

func SetBuffer(t BufferType, start, length uint32, data []byte) Status {
	return current().SetBuffer(t, start, length, data)
}

func Respond(code uint32, details string, body, headers []byte) Status {
	return current().Respond(code, details, body, headers)
}

func SetShared(key string, value []byte, cas uint32) Status {
	return current().SetShared(key, value, cas)
}

func DefineMetric(t MetricType, name string) (uint32, Status) {
	return current().DefineMetric(t, name)
}
