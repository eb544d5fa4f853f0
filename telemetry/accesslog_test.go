package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

func TestAccessLogLineIsJSON(t *testing.T) {
	var out bytes.Buffer
	m := NewMetrics("test")
	log := NewAccessLog(&out, m.LogLost)
	x := &exchange.Exchange{ID: []byte("id-1"), Start: time.Unix(1, 5), Protocol: exchange.HTTP11, Route: "default/books"}
	x.Request.Method, x.Request.Path = []byte("GET"), []byte("/a\"b\\c\xff\x01é")
	x.Response.Status = 502
	log.Log(x, 12, time.Unix(1, 2_000_005), errors.New(`bad "thing"`))
	log.Close()
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, out.String())
	}
	for key, want := range map[string]any{
		"time": "1970-01-01T00:00:01.000000005Z", "request_id": "id-1", "route": "default/books", "status": 502.0,
		"path": "/a\"b\\c\ufffd\x01é", "bytes_out": 12.0, "duration_ms": 2.0, "error": `bad "thing"`, "protocol": "HTTP/1.1",
	} {
		if got[key] != want {
			t.Errorf("%s = %#v, want %#v", key, got[key], want)
		}
	}
	if _, ok := got["service"]; ok {
		t.Error("an empty value is left out")
	}
}

func TestAccessLogDropsRatherThanGrows(t *testing.T) {
	r, w := io.Pipe() // no one reads: the writer is stuck
	m := NewMetrics("test")
	log := NewAccessLog(w, m.LogLost)
	x := &exchange.Exchange{Start: time.Unix(1, 0)}
	x.Request.Path = bytes.Repeat([]byte("x"), 1<<20)
	for range 20 {
		log.Log(x, 0, x.Start, nil)
	}
	log.mu.Lock()
	size := len(log.buf)
	log.mu.Unlock()
	if size > logBound+2<<20 {
		t.Errorf("the buffer grew to %d bytes", size)
	}
	go io.Copy(io.Discard, r)
	log.Close()
}

func TestCountingDoesNotAllocate(t *testing.T) {
	route := NewMetrics("test").Route("default/books")
	route.Answered(200, time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { route.Answered(200, time.Millisecond) }); n != 0 {
		t.Errorf("counting a request allocates %v times", n)
	}
}

func BenchmarkAnswered(b *testing.B) {
	route := NewMetrics("test").Route("default/books")
	for b.Loop() {
		route.Answered(200, 700*time.Microsecond)
	}
}
