package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy/wasm"
)

// TestTrapsAreShownToAuthors with the functions' names; what else goes wrong in the
// process is told elsewhere.
func TestTrapsAreShownToAuthors(t *testing.T) {
	var out strings.Builder
	log := newShownLog(&out)
	trap := &wasm.Trap{Callback: "proxy_on_request_headers", Reason: "out of bounds memory access", Frames: []string{"lookup", "main.__guest_.OnRequest"}}
	log.Warn("request failed", "request_id", "1", "error", fmt.Errorf("run policy: %w", trap))
	log.Warn("request failed", "error", errors.New("connection refused"))
	log.Warn("configuration refused")
	log.Error("disk full")
	log.With("plugin", "run").Info("hello")
	want := "  trap  run policy: proxy_on_request_headers trapped: out of bounds memory access; innermost first:\n" +
		"          lookup\n          main.(*guest).OnRequest\n" +
		"  error disk full\n  info  hello\n"
	if out.String() != want {
		t.Errorf("shown:\n%s\nwant:\n%s", out.String(), want)
	}
}
