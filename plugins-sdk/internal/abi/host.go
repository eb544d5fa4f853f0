package abi

// Host is the other side of the calls, for tests.
type Host interface {
	Log(level uint32, message string) Status
	LogLevel() (uint32, Status)
	Now() (uint64, Status)
	SetTickPeriod(ms uint32) Status

	GetHeader(m MapType, name string) (string, Status)
	GetHeaders(m MapType) ([]byte, Status)
	ReplaceHeader(m MapType, name, value string) Status
	AddHeader(m MapType, name, value string) Status
	RemoveHeader(m MapType, name string) Status

	GetBuffer(t BufferType, start, length uint32) ([]byte, Status)
	SetBuffer(t BufferType, start, length uint32, data []byte) Status
	Respond(code uint32, details string, body, headers []byte) Status

	GetProperty(path string) (string, Status)
	SetProperty(path, value string) Status
	GetShared(key string) ([]byte, uint32, Status)
	SetShared(key string, value []byte, cas uint32) Status

	DefineMetric(t MetricType, name string) (uint32, Status)
	IncrementMetric(id uint32, by int64) Status
	RecordMetric(id uint32, value uint64) Status
	GetMetric(id uint32) (uint64, Status)

	HTTPCall(service string, head, body []byte, ms uint32) (token uint32, s Status)
	GRPCCall(service, of, method string, metadata, message []byte, ms uint32) (token uint32, s Status)
	GRPCStream(service, of, method string, metadata []byte) (token uint32, s Status)
	GRPCSend(token uint32, message []byte, end bool) Status
	GRPCClose(token uint32) Status
	GRPCCancel(token uint32) Status
	CallStatus() (code uint32, message string)
	SetEffectiveContext(id uint32) Status
	ContinueStream(response bool) Status

	RegisterQueue(name string) (token uint32, s Status)
	ResolveQueue(name string) (token uint32, s Status)
	Enqueue(token uint32, message []byte) Status
	Dequeue(token uint32) ([]byte, Status)

	Foreign(name string, args []byte) ([]byte, Status)
}
