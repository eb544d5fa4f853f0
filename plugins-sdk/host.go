package sdk

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirmesh/weir/plugins-sdk/internal/abi"
)

// What the host offers beside the exchange. None of it works in init: a
// plugin may ask its host for something once it has a configuration.

// Level is how much a line of the log matters.
type Level uint32

// The levels of the log.
const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
	LevelCritical
)

// Log writes a line to the proxy's log, under the policy's name.
func Log(level Level, message string) { abi.Log(uint32(level), message) }

// Logs reports whether lines of this level are kept; ask before making a
// costly one.
func Logs(level Level) bool {
	least, s := abi.LogLevel()
	return s != abi.OK || uint32(level) >= least
}

// Debugf, Infof, Warnf and Errorf format only what is kept.
func Debugf(format string, args ...any) { logf(LevelDebug, format, args) }
func Infof(format string, args ...any)  { logf(LevelInfo, format, args) }
func Warnf(format string, args ...any)  { logf(LevelWarn, format, args) }
func Errorf(format string, args ...any) { logf(LevelError, format, args) }

func logf(level Level, format string, args []any) {
	if Logs(level) {
		Log(level, fmt.Sprintf(format, args...))
	}
}

// Now is the host's clock; its time.Time has no monotonic part.
func Now() time.Time { return time.Unix(0, NowNanos()) }

// NowNanos is [Now] as nanoseconds since 1970.
func NowNanos() int64 {
	ns, _ := abi.Now()
	return int64(ns)
}

// SetTick asks for OnTick once per period, rounded up to milliseconds; 0 ends
// it. Call it when a handler is made. Which sandboxes tick is the host's affair:
// in Weir one of each policy, that sees no exchanges.
func SetTick(period time.Duration) {
	abi.SetTickPeriod(uint32((period + time.Millisecond - 1) / time.Millisecond))
}

// Property asks the host; see [Exchange.Property]. Outside of an exchange there
// are "plugin_name" and "plugin_root_id".
func Property(path ...string) (string, bool) {
	value, s := abi.GetProperty(strings.Join(path, "\x00"))
	return value, s == abi.OK
}

// SetProperty gives the exchange a value of the plugin's own, which policies
// after it can read.
func SetProperty(value string, path ...string) error {
	return abi.SetProperty(strings.Join(path, "\x00"), value).Err()
}

// ErrConflict is returned by [SetShared] when the value has changed since it
// was read.
var ErrConflict error = abi.CASMismatch

// The versions that are no value's.
const (
	// Always stores a value unconditionally.
	Always uint32 = 0
	// Absent stores a value only where there is none.
	Absent uint32 = 1<<32 - 1
)

// GetShared reads what any sandbox of this proxy stored under the key, and the
// version to hand to [SetShared]. Where there is nothing it returns nil and
// Absent. Keys are shared by all policies of a tenant: prefix them.
func GetShared(key string) (value []byte, version uint32, err error) {
	value, version, s := abi.GetShared(key)
	switch s {
	case abi.OK:
		return value, version, nil
	case abi.NotFound:
		return nil, Absent, nil
	}
	return nil, 0, fmt.Errorf("get shared %q: %w", key, s)
}

// SetShared stores a value if its version is still the one read, and returns
// [ErrConflict] if it is not.
func SetShared(key string, value []byte, version uint32) error {
	switch s := abi.SetShared(key, value, version); s {
	case abi.OK:
		return nil
	case abi.CASMismatch:
		return ErrConflict
	default:
		return fmt.Errorf("set shared %q: %w", key, s)
	}
}

// UpdateShared replaces a value by what change makes of it, however many
// sandboxes do the same at once: change is called again when another was
// faster. It may return old itself, changed in place.
func UpdateShared(key string, change func(old []byte) []byte) error {
	const tries = 100
	for range tries {
		old, version, err := GetShared(key)
		if err != nil {
			return err
		}
		if err := SetShared(key, change(old), version); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("update shared %q: %w after %d tries", key, ErrConflict, tries)
}

// Counter is a metric that grows.
type Counter struct{ id uint32 }

// Gauge is a metric that goes up and down.
type Gauge struct{ id uint32 }

// Histogram is a metric that spreads values over buckets.
type Histogram struct{ id uint32 }

// NewCounter defines a metric, or finds it by its name. Define metrics when a
// handler is made.
func NewCounter(name string) (Counter, error) {
	id, err := define(abi.Counter, name)
	return Counter{id}, err
}

// NewGauge is as [NewCounter].
func NewGauge(name string) (Gauge, error) {
	id, err := define(abi.Gauge, name)
	return Gauge{id}, err
}

// NewHistogram is as [NewCounter].
func NewHistogram(name string) (Histogram, error) {
	id, err := define(abi.Histogram, name)
	return Histogram{id}, err
}

func define(kind abi.MetricType, name string) (uint32, error) {
	id, s := abi.DefineMetric(kind, name)
	if s != abi.OK {
		return 0, fmt.Errorf("define metric %q: %w", name, s)
	}
	return id, nil
}

// Add counts n more.
func (c Counter) Add(n int64) { abi.IncrementMetric(c.id, n) }

// Value is what was counted so far, by all sandboxes of the proxy.
func (c Counter) Value() uint64 { return metric(c.id) }

// Set puts the gauge at a value.
func (g Gauge) Set(value uint64) { abi.RecordMetric(g.id, value) }

// Add moves the gauge by n.
func (g Gauge) Add(n int64) { abi.IncrementMetric(g.id, n) }

// Value is where the gauge stands.
func (g Gauge) Value() uint64 { return metric(g.id) }

// Record adds a value.
func (h Histogram) Record(value uint64) { abi.RecordMetric(h.id, value) }

func metric(id uint32) uint64 {
	value, _ := abi.GetMetric(id)
	return value
}

// Foreign calls a function that this host offers and others may not; then the
// error says so. ABI.md lists Weir's.
func Foreign(name string, args []byte) ([]byte, error) {
	result, s := abi.Foreign(name, args)
	if s != abi.OK {
		return nil, fmt.Errorf("call %s: %w", name, s)
	}
	return result, nil
}
