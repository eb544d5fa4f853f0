//go:build linux

package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// tailSize is how much of a process's output is kept.
const tailSize = 256 << 10

// A tail keeps the last of what is written to it and lets others wait for it.
type tail struct {
	mu      sync.Mutex
	kept    []byte
	since   int  // where the output of the last start begins in kept
	ended   bool // the process of the last start has ended
	changed chan struct{}
}

func newTail() *tail { return &tail{changed: make(chan struct{})} }

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if surplus := len(t.kept) - tailSize; surplus > tailSize { // now and then, not at each line
		t.kept = append(t.kept[:0], t.kept[surplus:]...)
		t.since = max(0, t.since-surplus)
	}
	t.wake()
	return len(p), nil
}

// mark begins the output of another start.
func (t *tail) mark() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since, t.ended = len(t.kept), false
}

func (t *tail) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.wake()
}

func (t *tail) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *tail) wait(ctx context.Context, text string) error {
	for {
		t.mu.Lock()
		found, ended, changed := bytes.Contains(t.kept[t.since:], []byte(text)), t.ended, t.changed
		t.mu.Unlock()
		switch {
		case found:
			return nil
		case ended:
			return errors.New("it has ended")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}

// show writes the tail out, each line behind the name of its process.
func (t *tail) show(w io.Writer, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for line := range bytes.Lines(t.kept) {
		fmt.Fprintf(w, "%s| %s\n", name, bytes.TrimRight(line, "\n"))
	}
}
