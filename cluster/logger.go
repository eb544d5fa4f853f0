package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// logger is where Raft writes, in the words of slog. Raft tells every step of
// its life as information; here that is debugging. So are the warnings that
// every election begins with.
type logger struct {
	to   *slog.Logger
	name string
	args []any
}

func newLogger(to *slog.Logger) hclog.Logger {
	return &logger{to: to, name: "raft"}
}

// routine are warnings and errors that come with every start, every election
// and every member that is away for a while.
var routine = map[string]bool{
	"heartbeat timeout reached, starting election": true,
	// One that is being written.
	"found temporary snapshot":                                      true,
	"peer has newer term, stopping replication":                     true,
	"new leader elected, stepping down":                             true,
	"clearing log suffix":                                           true,
	"previous log term mis-match":                                   true,
	"rejecting vote request since we have a leader":                 true,
	"rejecting pre-vote request since our last term is greater":     true,
	"rejecting pre-vote request since our last index is greater":    true,
	"rejecting vote request since our last term is greater":         true,
	"rejecting vote request since our last index is greater":        true,
	"rejecting pre-vote request since node is not in configuration": true,
	"not part of stable configuration, aborting election":           true,
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": true,
	// Every step of an election that goes to another, and of a member that is
	// away, of which the steward tells.
	"failed to contact": true,
	"rejecting pre-vote request since we have a leader": true,
	"appendEntries rejected, sending older logs":        true,
	"failed to get previous log":                        true,
	"no known peers, aborting election":                 true,
	"failed to appendEntries to":                        true,
	"failed to heartbeat to":                            true,
	"failed to make requestVote RPC":                    true,
	"failed to pipeline appendEntries":                  true,
	"failed to start pipeline replication to":           true,
	"failed to decode incoming command":                 true,
	"failed to flush response":                          true,
}

func (l *logger) Log(level hclog.Level, message string, args ...any) {
	to := slog.LevelDebug
	switch {
	case routine[message], ending(args):
	case level >= hclog.Error:
		to = slog.LevelError
	case level == hclog.Warn:
		to = slog.LevelWarn
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	attrs := make([]any, 0, len(args))
	for _, arg := range args {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			arg = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
		attrs = append(attrs, arg)
	}
	l.to.Log(context.Background(), to, l.name+": "+message, attrs...)
}

// ending tells whether something failed only because the member ends.
func ending(args []any) bool {
	for _, arg := range args {
		// Raft does not always wrap it.
		if err, ok := arg.(error); ok && strings.HasSuffix(err.Error(), raft.ErrRaftShutdown.Error()) {
			return true
		}
	}
	return false
}

func (l *logger) Trace(message string, args ...any) { l.Log(hclog.Trace, message, args...) }
func (l *logger) Debug(message string, args ...any) { l.Log(hclog.Debug, message, args...) }
func (l *logger) Info(message string, args ...any)  { l.Log(hclog.Info, message, args...) }
func (l *logger) Warn(message string, args ...any)  { l.Log(hclog.Warn, message, args...) }
func (l *logger) Error(message string, args ...any) { l.Log(hclog.Error, message, args...) }

func (l *logger) enabled(level slog.Level) bool {
	return l.to.Enabled(context.Background(), level)
}

func (l *logger) IsTrace() bool { return false }
func (l *logger) IsDebug() bool { return l.enabled(slog.LevelDebug) }
func (l *logger) IsInfo() bool  { return l.enabled(slog.LevelDebug) }
func (l *logger) IsWarn() bool  { return l.enabled(slog.LevelWarn) }
func (l *logger) IsError() bool { return l.enabled(slog.LevelError) }

func (l *logger) ImpliedArgs() []any { return l.args }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{to: l.to.With(args...), name: l.name, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

func (l *logger) Name() string { return l.name }

func (l *logger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{to: l.to, name: name, args: l.args}
}

// SetLevel does nothing: the level is the slog handler's.
func (l *logger) SetLevel(hclog.Level) {}

func (l *logger) GetLevel() hclog.Level {
	if l.IsDebug() {
		return hclog.Debug
	}
	return hclog.Warn
}

func (l *logger) StandardLogger(opts *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(opts), "", 0)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

// lineWriter takes what is written to a standard logger as debugging.
type lineWriter struct{ to *logger }

func (w lineWriter) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		w.to.Debug(strings.TrimSpace(string(line)))
	}
	return len(p), nil
}
