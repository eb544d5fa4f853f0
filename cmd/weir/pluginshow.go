package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/weirmesh/weir/policy/plugintest"
)

// shownLog writes what an author wants to see of a process's log: the lines of
// the plugin, without what is the same in all of them, and what went wrong.
type shownLog struct {
	out   io.Writer
	guest bool
}

func newShownLog(out io.Writer) *slog.Logger { return slog.New(&shownLog{out: out}) }

// Enabled is part of [slog.Handler].
func (l *shownLog) Enabled(_ context.Context, level slog.Level) bool {
	if l.guest {
		return level >= slog.LevelDebug
	}
	return level >= slog.LevelWarn
}

// Handle is part of [slog.Handler].
func (l *shownLog) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if !l.guest && r.Level < slog.LevelError { // that something is refused is told by who declared it
		if !strings.HasPrefix(r.Message, "policy ") { // a circuit opens: the exchange has told why
			writeTrap(&b, &r)
		}
		_, err := io.WriteString(l.out, b.String())
		return err
	}
	fmt.Fprintf(&b, "  %-5s %s", strings.ToLower(r.Level.String()), r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		return true
	})
	b.WriteByte('\n')
	_, err := io.WriteString(l.out, b.String())
	return err
}

// shownFrames are those that tell an author where he is; the rest is a runtime's.
const shownFrames = 12

// writeTrap shows where the plugin trapped, if it has in the exchange that a record is
// about. A panic of Go's has said so in its own words before.
func writeTrap(b *strings.Builder, r *slog.Record) {
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		if !ok {
			return true
		}
		if stack := plugintest.StackOf(err); stack != nil {
			fmt.Fprintf(b, "  trap  %v; innermost first:\n", err)
			for _, frame := range stack[:min(len(stack), shownFrames)] {
				fmt.Fprintf(b, "          %s\n", frame)
			}
		}
		return false
	})
}

// WithAttrs is part of [slog.Handler]. The log of a plugin bears its name.
func (l *shownLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "plugin" {
			return &shownLog{l.out, true}
		}
	}
	return l
}

// WithGroup is part of [slog.Handler].
func (l *shownLog) WithGroup(string) slog.Handler { return l }

// shownRequests makes a line for people of each line of the access log.
type shownRequests struct{ out io.Writer }

// Write takes whole lines, as the access log writes them.
func (s *shownRequests) Write(p []byte) (int, error) {
	var b bytes.Buffer
	for line := range bytes.Lines(p) {
		var e struct {
			Time                        time.Time
			Method, Host, Path, Details string
			Status                      int
			Bytes                       int64   `json:"bytes_out"`
			Duration                    float64 `json:"duration_ms"`
			Error                       string
		}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		fmt.Fprintf(&b, "%s %s %s%s: %d, %d B, %.1f ms", e.Time.Local().Format(time.TimeOnly), e.Method, e.Host, e.Path, e.Status, e.Bytes, e.Duration)
		for _, more := range []string{e.Details, e.Error} {
			if more != "" {
				fmt.Fprintf(&b, ", %s", more)
			}
		}
		b.WriteByte('\n')
	}
	if _, err := s.out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// echo is a service that answers with what it was asked.
type echo struct {
	http.Server
	address string
}

// maxEcho is how much of a body is told.
const maxEcho = 64 << 10

func startEcho() (*echo, error) {
	l, err := net.Listen("tcp", anyPort)
	if err != nil {
		return nil, fmt.Errorf("start a service: %w", err)
	}
	e := &echo{address: l.Addr().String()}
	e.Handler, e.ReadHeaderTimeout = http.HandlerFunc(tellRequest), time.Minute
	go func() { _ = e.Serve(l) }() // until Close
	return e, nil
}

func tellRequest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxEcho))
	if err != nil {
		return
	}
	more, _ := io.Copy(io.Discard, r.Body)
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	told := struct {
		Method  string            `json:"method"`
		Host    string            `json:"host"`
		Path    string            `json:"path"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body,omitempty"`
		More    int64             `json:"bytesNotShown,omitempty"`
	}{r.Method, r.Host, r.RequestURI, headers, string(body), more}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	_ = out.Encode(&told)
}
