package policytest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// Host is what the plugins of a test share: a clock that stands still, shared
// data, metrics, a log. Its methods may be called from several goroutines.
type Host struct {
	mu        sync.Mutex
	now       time.Time
	shared    map[string]shared
	lastCAS   uint32
	metrics   map[string]uint32
	values    []uint64
	lines     []string
	log       testing.TB
	foreign   map[string]func([]byte) ([]byte, error)
	ticking   time.Duration
	services  map[string]func(Message) (Message, error)
	talkers   map[string]func(s *Stream, message string, end bool)
	lastToken uint32
	queues    []*queue // by their token, less one
	// conflicts is how many writes of shared data are still to be refused.
	conflicts int
}

type shared struct {
	value []byte
	cas   uint32
}

// NewHost returns a host whose clock stands at the start of 2026.
func NewHost() *Host {
	return &Host{
		now:      time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		shared:   map[string]shared{},
		metrics:  map[string]uint32{},
		foreign:  map[string]func([]byte) ([]byte, error){},
		services: map[string]func(Message) (Message, error){},
		talkers:  map[string]func(*Stream, string, bool){},
	}
}

// Host returns the policy's.
func (p *Policy) Host() *Host { return p.host }

// Advance moves the clock.
func (h *Host) Advance(by time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(by)
}

// Foreign offers a function to [sdk.Foreign].
func (h *Host) Foreign(name string, f func(args []byte) ([]byte, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foreign[name] = f
}

// Conflict refuses the next n conditional writes of shared data, as if another
// sandbox had been faster.
func (h *Host) Conflict(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conflicts = n
}

// Logged returns the lines logged so far, oldest first.
func (h *Host) Logged() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.lines)
}

// Metric returns a metric's value; a histogram's is the last one recorded.
func (h *Host) Metric(name string) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, ok := h.metrics[name]
	if !ok {
		return 0
	}
	return h.values[id]
}

// SharedKeys counts the keys in the shared data.
func (h *Host) SharedKeys() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.shared)
}

// TickPeriod is what the last [sdk.SetTick] asked for.
func (h *Host) TickPeriod() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ticking
}

// during calls f with the host answering for the call.
func (h *Host) during(c *call, f func()) { abi.With(&side{Host: h, call: c}, f) }

// side is the host as one callback sees it.
type side struct {
	*Host
	call *call
}

func (s *side) Log(level uint32, message string) abi.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, message)
	if s.log != nil {
		s.log.Logf("[%d] %s", level, message)
	}
	return abi.OK
}

func (s *side) LogLevel() (uint32, abi.Status) { return uint32(sdk.LevelTrace), abi.OK }

func (s *side) Now() (uint64, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(s.now.UnixNano()), abi.OK
}

func (s *side) SetTickPeriod(ms uint32) abi.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = time.Duration(ms) * time.Millisecond
	return abi.OK
}

func (s *side) GetHeader(m abi.MapType, name string) (string, abi.Status) {
	section := s.call.section(m)
	if section == nil {
		return "", abi.BadArgument
	}
	if i := section.header.index(name); i >= 0 {
		return section.header[i].Value, abi.OK
	}
	return "", abi.NotFound
}

func (s *side) GetHeaders(m abi.MapType) ([]byte, abi.Status) {
	section := s.call.section(m)
	if section == nil {
		return nil, abi.BadArgument
	}
	h := section.header
	return abi.AppendPairs(nil, len(h), func(i int) (string, string) { return h[i].Name, h[i].Value }), abi.OK
}

// change lets a section be written while its head is not yet passed on.
func (s *side) change(m abi.MapType, how func(h Header) Header) abi.Status {
	section := s.call.section(m)
	if section == nil || !section.headOpen {
		return abi.BadArgument
	}
	section.header = how(section.header)
	return abi.OK
}

func (s *side) ReplaceHeader(m abi.MapType, name, value string) abi.Status {
	return s.change(m, func(h Header) Header {
		i := h.index(name)
		if i < 0 {
			return append(h, sdk.Field{Name: name, Value: value})
		}
		h[i].Value = value
		return append(h[:i+1], h[i+1:].without(name)...)
	})
}

func (s *side) AddHeader(m abi.MapType, name, value string) abi.Status {
	return s.change(m, func(h Header) Header { return append(h, sdk.Field{Name: name, Value: value}) })
}

func (s *side) RemoveHeader(m abi.MapType, name string) abi.Status {
	return s.change(m, func(h Header) Header { return h.without(name) })
}

func (s *side) buffer(t abi.BufferType) *[]byte {
	switch t {
	case abi.RequestBody:
		if m := &s.call.messages[0]; m.bodyOpen {
			return &m.held
		}
	case abi.ResponseBody:
		if m := &s.call.messages[1]; m.bodyOpen {
			return &m.held
		}
	case abi.PluginConfiguration:
		return &s.call.config
	case abi.HTTPCallResponse, abi.GRPCMessage:
		if s.call.reply != nil {
			return &s.call.reply.held
		}
	}
	return nil
}

func (s *side) GetBuffer(t abi.BufferType, start, length uint32) ([]byte, abi.Status) {
	b := s.buffer(t)
	switch {
	case b == nil:
		return nil, abi.NotFound
	case uint64(start) >= uint64(len(*b)):
		return nil, abi.OK
	}
	end := min(uint64(start)+uint64(length), uint64(len(*b)))
	return slices.Clone((*b)[start:end]), abi.OK
}

func (s *side) SetBuffer(t abi.BufferType, start, length uint32, data []byte) abi.Status {
	b := s.buffer(t)
	switch {
	case b == nil || t == abi.PluginConfiguration || t == abi.HTTPCallResponse:
		return abi.BadArgument
	case start == 0 && length == 0:
		*b = append(slices.Clone(data), *b...)
	case start == 0 && uint64(length) >= uint64(len(*b)):
		*b = slices.Clone(data)
	case uint64(start) >= uint64(len(*b)):
		*b = append(*b, data...)
	default:
		return abi.BadArgument
	}
	return abi.OK
}

func (s *side) Respond(code uint32, details string, body, headers []byte) abi.Status {
	answer := message{section: section{header: Fields(":status", strconv.Itoa(int(code)))}, sent: slices.Clone(body)}
	abi.Pairs(slices.Clone(headers), func(name, value string) bool {
		answer.header = append(answer.header, sdk.Field{Name: name, Value: value})
		return true
	})
	s.call.messages[1] = answer
	s.call.answered, s.call.details = true, strings.Clone(details)
	return abi.OK
}

func (s *side) GetProperty(path string) (string, abi.Status) {
	if value, ok := s.call.properties[path]; ok {
		return value, abi.OK
	}
	return "", abi.NotFound
}

func (s *side) SetProperty(path, value string) abi.Status {
	if s.call.properties == nil {
		return abi.BadArgument
	}
	s.call.properties[strings.Clone(path)] = strings.Clone(value)
	return abi.OK
}

func (s *side) GetShared(key string) ([]byte, uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.shared[key]
	if !ok {
		return nil, 0, abi.NotFound
	}
	return slices.Clone(v.value), v.cas, abi.OK
}

// SetShared keeps Envoy's rule: a version is compared only with a value that is there.
func (s *side) SetShared(key string, value []byte, cas uint32) abi.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.shared[key]
	if cas != 0 && s.conflicts > 0 {
		s.conflicts--
		return abi.CASMismatch
	}
	if ok && cas != 0 && cas != v.cas {
		return abi.CASMismatch
	}
	s.lastCAS++
	s.shared[strings.Clone(key)] = shared{slices.Clone(value), s.lastCAS}
	return abi.OK
}

func (s *side) DefineMetric(_ abi.MetricType, name string) (uint32, abi.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.metrics[name]; ok {
		return id, abi.OK
	}
	id := uint32(len(s.values))
	s.metrics[name] = id
	s.values = append(s.values, 0)
	return id, abi.OK
}

func (s *side) withMetric(id uint32, f func(value *uint64)) abi.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(id) >= len(s.values) {
		return abi.NotFound
	}
	f(&s.values[id])
	return abi.OK
}

func (s *side) IncrementMetric(id uint32, by int64) abi.Status {
	return s.withMetric(id, func(value *uint64) { *value += uint64(by) })
}

func (s *side) RecordMetric(id uint32, to uint64) abi.Status {
	return s.withMetric(id, func(value *uint64) { *value = to })
}

func (s *side) GetMetric(id uint32) (uint64, abi.Status) {
	var read uint64
	status := s.withMetric(id, func(value *uint64) { read = *value })
	return read, status
}

func (s *side) Foreign(name string, args []byte) ([]byte, abi.Status) {
	s.mu.Lock()
	f := s.foreign[name]
	s.mu.Unlock()
	if f == nil && name == "weir.phases" {
		s.call.told = args[0]&abi.PhaseLight != 0
		if len(args) > 1 {
			s.call.trailing = args[1]
		}
		return slices.Clone(args[:1]), abi.OK // it knows all of them
	}
	if f == nil && name == "weir.wait" {
		return s.beginWait(args)
	}
	if compute := computed[name]; f == nil && compute != nil {
		return compute(args)
	}
	if f == nil {
		return nil, abi.NotFound
	}
	result, err := f(slices.Clone(args))
	if status := abi.OK; errors.As(err, &status) {
		return nil, status
	}
	if err != nil {
		s.Log(uint32(sdk.LevelError), fmt.Sprintf("foreign function %s: %v", name, err))
		return nil, abi.Internal
	}
	return result, abi.OK
}
