package compress

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/proxy/exchange"
)

func decode(t testing.TB, coding string, data []byte) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch coding {
	case "zstd":
		r, err = zstd.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "gzip":
		r, err = gzip.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read as %s: %v", coding, err)
	}
	return string(text)
}

func TestNegotiation(t *testing.T) {
	r := New(&weirv1.Compression{})
	for _, c := range []struct {
		accept string
		want   Coding
		must   bool
	}{
		{"", Identity, false},
		{"gzip", Gzip, false},
		{"x-gzip", Gzip, false},
		{"GZIP", Gzip, false},
		{"gzip, br, zstd", Zstd, false},
		{"gzip, deflate, br", Brotli, false},
		{"gzip;q=1, br;q=0.9", Gzip, false},
		{"gzip ; q=0.5 ,br;q=0.51", Brotli, false},
		{"*", Zstd, false},
		{"*;q=0.1, gzip;q=0.2", Gzip, false},
		{"zstd;q=0, *", Brotli, false},
		{"gzip;q=0", Identity, false},
		{"gzip;q=0.0, br;q=0.000", Identity, false},
		{"identity;q=1, gzip;q=0.5", Identity, false},
		{"identity;q=0.5, gzip", Gzip, false},
		{"identity;q=0, gzip", Gzip, true},
		{"*;q=0, gzip", Gzip, true},
		{"*;q=0", Identity, false}, // nothing will do, so the answer as it is
		{"deflate, compress", Identity, false},
		{"gzip;q=2", Identity, false},
		{"gzip;q=0.1234", Identity, false},
		{"gzip;q=", Identity, false},
		{"gzip;level=9", Identity, false},
		{",,;, br", Brotli, false},
	} {
		x := new(exchange.Exchange)
		if c.accept != "" {
			x.Request.Fields.Add([]byte("Accept-Encoding"), []byte(c.accept))
		}
		if got, must := r.negotiate(x); got != c.want || must != c.must {
			t.Errorf("%q: got %s, must %v", c.accept, got, must)
		}
	}
	x := new(exchange.Exchange)
	x.Request.Fields.Add([]byte("Accept-Encoding"), []byte("br"))
	x.Request.Fields.Add([]byte("Accept-Encoding"), []byte("zstd"))
	if got, _ := New(&weirv1.Compression{Algorithms: []string{"gzip", "br", "zstd"}}).negotiate(x); got != Brotli {
		t.Errorf("of two as welcome: got %s, not the one that the rule prefers", got)
	}
}

// answered makes an exchange with an answer: fields as "Name: value", those of
// the request after a ">".
func answered(status int, body exchange.Body, fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Protocol: exchange.HTTP11}
	x.Response.Status, x.Response.Body = status, body
	for _, line := range fields {
		to := &x.Response.Fields
		if rest, ok := strings.CutPrefix(line, ">"); ok {
			to, line = &x.Request.Fields, rest
		}
		name, value, _ := strings.Cut(line, ": ")
		to.Add([]byte(name), []byte(value))
	}
	return x
}

var text = strings.Repeat("It was the best of times, it was the worst of times. ", 100)

func TestWhatIsCompressed(t *testing.T) {
	const gz, json = ">Accept-Encoding: gzip", "Content-Type: application/json"
	long := func() exchange.Body { return exchange.Bytes([]byte(text)) }
	for _, c := range []struct {
		name   string
		status int
		body   exchange.Body
		head   bool
		fields []string
		want   string // "compressed", "varies" or "as it is"
	}{
		{"json", 200, long(), false, []string{gz, json}, "compressed"},
		{"an error", 404, long(), false, []string{gz, json}, "compressed"},
		{"with a charset", 200, long(), false, []string{gz, "Content-Type: Text/HTML; charset=utf-8"}, "compressed"},
		{"a suffix", 200, long(), false, []string{gz, "Content-Type: application/problem+json"}, "compressed"},
		{"an image", 200, long(), false, []string{gz, "Content-Type: image/png"}, "as it is"},
		{"no type", 200, long(), false, []string{gz}, "as it is"},
		{"short", 200, exchange.Bytes([]byte("short")), false, []string{gz, json}, "as it is"},
		{"short, for a client that does not want it plain", 200, exchange.Bytes([]byte("short")), false, []string{">Accept-Encoding: gzip, identity;q=0", json}, "compressed"},
		{"no body", 200, nil, false, []string{gz, json}, "as it is"},
		{"a client that says nothing", 200, long(), false, []string{json}, "varies"},
		{"compressed already", 200, long(), false, []string{gz, json, "Content-Encoding: br"}, "as it is"},
		{"said not to be compressed", 200, long(), false, []string{gz, json, "Content-Encoding: identity"}, "compressed"},
		{"no-transform", 200, long(), false, []string{gz, json, "Cache-Control: public, No-Transform"}, "as it is"},
		{"no-transform, of the client", 200, long(), false, []string{gz, json, ">Cache-Control: no-transform"}, "as it is"},
		{"a part", 206, long(), false, []string{gz, json, "Content-Range: bytes 0-99/100"}, "as it is"},
		{"an answer with a digest", 200, long(), false, []string{gz, json, "Content-Digest: sha-256=:eA==:"}, "as it is"},
		{"not modified", 304, nil, false, []string{gz}, "varies"},
		{"HEAD", 200, nil, true, []string{gz, json, "Content-Length: 5000"}, "compressed"},
		{"HEAD of what is short", 200, nil, true, []string{gz, json, "Content-Length: 50"}, "as it is"},
		{"HEAD of unknown length", 200, nil, true, []string{gz, json}, "compressed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := answered(c.status, c.body, append(c.fields, `ETag: "v1"`, "Accept-Ranges: bytes")...)
			if c.body != nil {
				x.Response.Fields.Add([]byte("Content-Length"), []byte("5000"))
			}
			var b Body
			defer b.Close()
			New(&weirv1.Compression{}).Apply(x, c.head, &b)
			f := &x.Response.Fields
			got := "as it is"
			switch {
			case string(f.Get("content-encoding")) == "gzip":
				got = "compressed"
				if string(f.Get("etag")) != `W/"v1"` || f.Has("content-length") || f.Has("accept-ranges") || !f.Has("vary") {
					t.Errorf("the fields do not follow: %s, length %s, vary %s", f.Get("etag"), f.Get("content-length"), f.Get("vary"))
				}
			case f.Has("vary"):
				got = "varies"
			}
			if got != c.want {
				t.Errorf("it is %s, not %s", got, c.want)
			}
		})
	}
	x := answered(200, long(), gz, json)
	x.Protocol = exchange.HTTP10
	var b Body
	if New(&weirv1.Compression{}).Apply(x, false, &b); x.Response.Fields.Has("content-encoding") {
		t.Error("a client of HTTP/1.0 cannot tell where it ends")
	}
}

// chunks is a body that comes in parts. It is ready for those that are followed
// by one marked with "+".
type chunks struct {
	parts []string
	fails error
	waits func() // called before a part for which it has to wait
}

func (c *chunks) Length() int64 { return -1 }
func (c *chunks) Ready() bool   { return len(c.parts) > 0 && c.parts[0][0] == '+' }
func (c *chunks) Next() ([]byte, error) {
	if !c.Ready() && c.waits != nil {
		c.waits()
	}
	if len(c.parts) == 0 {
		if c.fails != nil {
			return nil, c.fails
		}
		return nil, io.EOF
	}
	p := c.parts[0][1:]
	c.parts = c.parts[1:]
	return []byte(p), nil
}

func TestEveryCodingRoundTrips(t *testing.T) {
	for _, coding := range []string{"zstd", "br", "gzip"} {
		for range 2 { // with a new encoder and a used one
			x := answered(200, &chunks{parts: []string{"+" + text, "+" + text, " tail"}}, ">Accept-Encoding: "+coding, "Content-Type: text/plain")
			var b Body
			New(&weirv1.Compression{}).Apply(x, false, &b)
			var sent []byte
			for {
				chunk, err := x.Response.Body.Next()
				if err == io.EOF {
					break
				}
				if err != nil || len(chunk) == 0 {
					t.Fatalf("a chunk of %d bytes, %v", len(chunk), err)
				}
				sent = append(sent, chunk...)
			}
			b.Close()
			b.Close()
			if got := decode(t, coding, sent); got != text+text+"tail" {
				t.Errorf("%s: got %d bytes", coding, len(got))
			}
			if len(sent) > len(text)/4 {
				t.Errorf("%s: %d bytes became %d", coding, 2*len(text), len(sent))
			}
		}
	}
	if AtWork() != 0 {
		t.Errorf("%d encoders are not given back", AtWork())
	}
}

// Each event is on its way before the next one is waited for.
func TestStreamsAreFlushed(t *testing.T) {
	for _, coding := range []string{"zstd", "br", "gzip"} {
		var sent []byte
		var came []int
		inner := &chunks{parts: []string{" data: 1\n\n", " data: 2\n\n", " data: 3\n\n"}}
		inner.waits = func() { came = append(came, len(sent)) }
		x := answered(200, inner, ">Accept-Encoding: "+coding, "Content-Type: text/event-stream")
		var b Body
		New(&weirv1.Compression{}).Apply(x, false, &b)
		for {
			chunk, err := x.Response.Body.Next()
			if err != nil {
				break
			}
			sent = append(sent, chunk...)
		}
		b.Close()
		if len(came) != 4 || came[1] == 0 || came[2] <= came[1] || came[3] <= came[2] {
			t.Errorf("%s: sent by each wait: %v", coding, came)
		}
		if got := decode(t, coding, sent); got != "data: 1\n\ndata: 2\n\ndata: 3\n\n" {
			t.Errorf("%s: got %q", coding, got)
		}
	}
}

// A body that breaks off does not look whole.
func TestABrokenBodyHasNoEnd(t *testing.T) {
	broken := errors.New("broken")
	for _, coding := range []string{"zstd", "br", "gzip"} {
		x := answered(200, &chunks{parts: []string{"+" + text}, fails: broken}, ">Accept-Encoding: "+coding, "Content-Type: text/plain")
		var b Body
		New(&weirv1.Compression{}).Apply(x, false, &b)
		var err error
		for err == nil {
			_, err = x.Response.Body.Next()
		}
		b.Close()
		if !errors.Is(err, broken) {
			t.Errorf("%s: it ends with %v", coding, err)
		}
	}
}

func TestEncodersAreBounded(t *testing.T) {
	r := New(&weirv1.Compression{Algorithms: []string{"gzip"}})
	bodies := make([]Body, MaxEncoders+1)
	var plain int
	for i := range bodies {
		x := answered(200, exchange.Bytes([]byte(text)), ">Accept-Encoding: gzip", "Content-Type: text/plain")
		r.Apply(x, false, &bodies[i])
		if !x.Response.Fields.Has("content-encoding") {
			plain++
			if string(x.Response.Fields.Get("vary")) != "Accept-Encoding" {
				t.Error("what was left alone still varies")
			}
		}
	}
	if plain != 1 || AtWork() != MaxEncoders {
		t.Errorf("%d answers were left alone with %d encoders at work", plain, AtWork())
	}
	for i := range bodies {
		bodies[i].Close()
	}
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, s := range []string{"gzip;q=0.5, *", "br;q=1.000", ";q=", "identity;q=0,*;q=0", "gzip;q=0.;x"} {
		f.Add(s)
	}
	r := New(&weirv1.Compression{})
	f.Fuzz(func(t *testing.T, accept string) {
		x := new(exchange.Exchange)
		x.Request.Fields.AddParsed([]byte("Accept-Encoding"), []byte(accept))
		coding, must := r.negotiate(x)
		if must && coding == Identity {
			t.Error("the answer as it is cannot be what must not be")
		}
		name := coding.String()
		if coding != Identity && !strings.Contains(accept, "*") && !strings.Contains(strings.ToLower(accept), name) {
			t.Errorf("%q: %s was not asked for", accept, name)
		}
	})
}

// FuzzRoundTrip: whatever the pieces that a body comes in, it is read back as it was.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range []string{"", "a", text} {
		f.Add([]byte(s), uint8(7))
	}
	f.Fuzz(func(t *testing.T, whole []byte, piece uint8) {
		for _, c := range []Coding{Zstd, Brotli, Gzip} {
			var encoded []byte
			var body Body
			body.begin(&pieces{rest: whole, size: max(1, int(piece))}, c)
			for {
				chunk, err := body.Next()
				if err == io.EOF {
					break
				}
				if err != nil || len(chunk) == 0 {
					t.Fatalf("%s: a chunk of %d bytes, %v", c, len(chunk), err)
				}
				encoded = append(encoded, chunk...)
			}
			body.Close()
			if got := decode(t, c.String(), encoded); got != string(whole) {
				t.Fatalf("%s: %q became %q", c, whole, got)
			}
		}
	})
}

// pieces is a body that comes in pieces of a size, each where the one before was.
type pieces struct {
	rest, chunk []byte
	size        int
}

func (p *pieces) Length() int64 { return -1 }

func (p *pieces) Next() ([]byte, error) {
	if len(p.rest) == 0 {
		return nil, io.EOF
	}
	n := min(p.size, len(p.rest))
	p.chunk, p.rest = append(p.chunk[:0], p.rest[:n]...), p.rest[n:]
	return p.chunk, nil
}

// What an encoder takes, and what a kilobyte costs.
func BenchmarkCodings(b *testing.B) {
	for _, c := range []Coding{Zstd, Brotli, Gzip} {
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var body Body
			for b.Loop() {
				body.begin(exchange.Bytes([]byte(text)), c)
				for {
					if _, err := body.Next(); err != nil {
						break
					}
				}
				body.Close()
			}
		})
	}
}
