package wasm

import (
	"strings"
	"testing"

	"github.com/weirmesh/weir/policy/wasm/sections"
)

func TestSupportFor(t *testing.T) {
	for _, c := range []struct {
		module, name string
		kind         sections.Kind
		want         Support
	}{
		{"env", "proxy_log", sections.Function, Supported},
		{"wasi_snapshot_preview1", "fd_write", sections.Function, Supported},
		{"wasi_unstable", "proc_exit", sections.Function, Supported},
		{"env", "proxy_http_call", sections.Function, Supported},
		{"env", "proxy_enqueue_shared_queue", sections.Function, Supported},
		{"env", "proxy_redis_call", sections.Function, Supported},
		{"env", "proxy_inject_encoded_data_to_filter_chain", sections.Function, NotOffered},
		{"env", "proxy_new_invention", sections.Function, Unknown},
		{"env", "memory", sections.MemoryKind, Unknown},
		{"net", "dial", sections.Function, Unknown},
	} {
		if got, _ := SupportFor(sections.Import{Module: c.module, Name: c.name, Kind: c.kind}); got != c.want {
			t.Errorf("%s.%s is %s, want %s", c.module, c.name, got, c.want)
		}
	}
	// What says that it is not offered is listed as such.
	for name, f := range envFunctions {
		if (f.kind&absent != 0) != strings.HasSuffix(f.about, "(not offered)") {
			t.Errorf("%s: %q", name, f.about)
		}
	}
}
