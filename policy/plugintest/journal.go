package plugintest

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/weirmesh/weir/policy/wasm"
)

// journal keeps what is logged: by the plugin, and by the host about it.
type journal struct {
	level slog.Level

	mu  sync.Mutex
	all []string
}

// maxJournal is how many lines a case keeps.
const maxJournal = 1_000

// Enabled implements slog.Handler.
func (j *journal) Enabled(_ context.Context, level slog.Level) bool { return level >= j.level }

// Handle implements slog.Handler.
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.all) < maxJournal {
		j.all = append(j.all, strings.ToLower(r.Level.String())+" "+r.Message)
	}
	return nil
}

// WithAttrs implements slog.Handler: whose lines they are is known.
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j *journal) WithGroup(string) slog.Handler { return j }

func (j *journal) reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all = nil
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.all)
}

// goMethod is how Go's linker writes (*stamp).OnRequest.
var goMethod = regexp.MustCompile(`\.__(\w+)_\.`)

// StackOf is where a plugin trapped, innermost first, of an error that it failed with;
// nil: it has not trapped.
func StackOf(err error) []string {
	if trap := wasm.TrapOf(err); trap != nil {
		return readable(trap.Frames)
	}
	return nil
}

// readable writes the functions of a stack as their language does.
func readable(frames []string) []string {
	out := make([]string, len(frames))
	for i, f := range frames {
		out[i] = goMethod.ReplaceAllString(f, ".(*$1).")
	}
	return out
}
