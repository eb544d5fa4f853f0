package wasm

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

// guestLog is where a policy's guests log: the proxy's log, so many lines a
// second. What is too much is dropped and counted, and the count is logged with
// the next line that passes.
type guestLog struct {
	logger  *slog.Logger
	lines   bucket
	tenant  *bucket // of all policies of the tenant
	dropped atomic.Uint64
	silent  atomic.Uint64 // dropped since the last line
}

// bucket is so many lines a second, and as many in a burst.
type bucket struct {
	rate float64

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

func newBucket(rate float64) bucket { return bucket{rate: rate, tokens: rate} }

func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tokens = min(b.rate, b.tokens+now.Sub(b.filled).Seconds()*b.rate)
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func newGuestLog(config Config, spec policy.Spec, tenant *tenantData) *guestLog {
	return &guestLog{
		logger: config.Logger.With("policy", spec.Tenant+"/"+spec.Name, "plugin", spec.Plugin),
		lines:  newBucket(float64(config.LogLines)), tenant: &tenant.lines,
	}
}

var levels = [...]slog.Level{
	abi.Trace: slog.LevelDebug - 4, abi.Debug: slog.LevelDebug, abi.Info: slog.LevelInfo,
	abi.Warn: slog.LevelWarn, abi.Error: slog.LevelError, abi.Critical: slog.LevelError + 4,
}

func (l *guestLog) keeps(level abi.Level) bool {
	return l.logger.Enabled(context.Background(), levels[level])
}

// least is the lowest level that is kept.
func (l *guestLog) least() abi.Level {
	for level := abi.Trace; level < abi.Critical; level++ {
		if l.keeps(level) {
			return level
		}
	}
	return abi.Critical
}

// bytes logs what a guest has in its memory.
func (l *guestLog) bytes(v *vm, level abi.Level, b []byte) {
	if v.stage > stageRoot && !l.keeps(level) {
		return
	}
	b = bytes.TrimRight(b[:min(len(b), maxLogBytes)], "\r\n")
	l.line(v, level, strings.ToValidUTF8(string(b), "\uFFFD"))
}

// line logs for a guest. Until it is configured its lines are also remembered,
// to be part of the error if it fails.
func (l *guestLog) line(v *vm, level abi.Level, text string) {
	if v.stage <= stageRoot {
		v.recent.add(text)
	}
	if !l.keeps(level) {
		return
	}
	silent, ok := l.admit()
	if !ok {
		return
	}
	if silent > 0 {
		l.logger.Warn("plugin logs too much", "dropped", silent)
	}
	f := v.current
	if f == nil {
		f = v.shown()
	}
	if f != nil && len(f.x.ID) > 0 {
		l.logger.Log(v, levels[level], text, "request_id", string(f.x.ID))
		return
	}
	l.logger.Log(v, levels[level], text)
}

func (l *guestLog) admit() (silent uint64, ok bool) {
	if !l.lines.take() || !l.tenant.take() {
		l.dropped.Add(1)
		l.silent.Add(1)
		return 0, false
	}
	return l.silent.Swap(0), true
}

// warn logs for the host.
func (l *guestLog) warn(text string, args ...any) {
	if _, ok := l.admit(); ok {
		l.logger.Warn(text, args...)
	}
}

// recentLines are the first and the last lines that a guest logged while it was
// started: a runtime that dies says first why, and a plugin last.
type recentLines struct {
	first, last [4]string
	n           int
}

func (r *recentLines) add(line string) {
	if r.n < len(r.first) {
		r.first[r.n] = line
	} else {
		r.last[r.n%len(r.last)] = line
	}
	r.n++
}

func (r *recentLines) String() string {
	if r.n == 0 {
		return ""
	}
	var out strings.Builder
	out.WriteString("; it logged:")
	for i := range min(r.n, len(r.first)) {
		out.WriteString("\n\t" + r.first[i])
	}
	if r.n > len(r.first)+len(r.last) {
		out.WriteString("\n\t…")
	}
	for i := max(len(r.first), r.n-len(r.last)); i < r.n; i++ {
		out.WriteString("\n\t" + r.last[i%len(r.last)])
	}
	return out.String()
}

// output collects what a guest writes until there is a line.
type output struct{ partial []byte }

func (o *output) write(v *vm, level abi.Level, b []byte) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, newline)
		room := maxLogBytes - len(o.partial)
		o.partial = append(o.partial, line[:min(len(line), room)]...)
		if !ended {
			return
		}
		v.draw(fuelPerLog)
		v.policy.log.bytes(v, level, o.partial)
		o.partial = o.partial[:0]
		b = rest
	}
}

var newline = []byte{'\n'}
