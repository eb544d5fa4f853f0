package http2_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/http1"
	"github.com/weirmesh/weir/proxy/http2"
)

// Whatever a client sends, every exchange ends, all that was lent comes back, and
// what is served could be sent on by HTTP/1.1 without becoming something else.
func FuzzConn(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		client, far := net.Pipe()
		s := serveConn(t, client, far, func(_ *place, x *exchange.Exchange) {
			checkServed(t, x)
			if body, err := readAll(x); err == nil {
				for i := range x.Request.Trailers.Len() {
					if name := x.Request.Trailers.At(i).Name; !http1.MayTrail(name) || !exchange.ValidName(name) {
						t.Errorf("the trailer %q is passed on", name)
					}
				}
				x.Answer(200, append([]byte("ok"), body...))
			} else {
				x.Answer(400, nil)
			}
		}, func(c *http2.Config) { c.Idle, c.Head, c.Stall = time.Second, time.Second, time.Second })
		read := make(chan struct{})
		go func() { defer close(read); _, _ = io.Copy(io.Discard, client) }()
		_, _ = io.WriteString(client, http2.Preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+"\x00\x00\x00\x04\x01\x00\x00\x00\x00")
		_, _ = client.Write(data)
		s.close()
		<-read
	})
}

func checkServed(t *testing.T, x *exchange.Exchange) {
	r := &x.Request
	if err := http1.CheckRequest(r); err != nil {
		t.Errorf("served %q, which cannot be sent: %v", describe(x), err)
	}
	size := 0
	for i := range r.Fields.Len() {
		f := r.Fields.At(i)
		size += len(f.Name) + len(f.Value)
		if !exchange.ValidName(f.Name) || bytes.ContainsAny(f.Value, "\r\n\x00") || !bytes.Equal(bytes.ToLower(f.Name), f.Name) {
			t.Errorf("served the field %q: %q", f.Name, f.Value)
		}
		switch string(f.Name) {
		case "host", "connection", "transfer-encoding", "upgrade", "te", "keep-alive", "proxy-connection":
			t.Errorf("served the field %q", f.Name)
		}
	}
	if r.Fields.Len() > http1.MaxFields || size > http1.MaxHead {
		t.Errorf("served %d fields of %d bytes", r.Fields.Len(), size)
	}
}

// seeds are what clients send, well-formed and nearly so.
func seeds() [][]byte {
	var all [][]byte
	record := func(send func(f *xhttp2.Framer, head func(...string) []byte)) {
		var out, block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		send(xhttp2.NewFramer(&out, nil), func(fields ...string) []byte {
			block.Reset()
			for i := 0; i+1 < len(fields); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
			}
			return bytes.Clone(block.Bytes())
		})
		all = append(all, out.Bytes())
	}
	get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/", "cookie", "a", "cookie", "b", "te", "trailers"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/x?y", "content-length", "5", "expect", "100-continue"}
	record(func(f *xhttp2.Framer, head func(...string) []byte) {
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(get...), EndStream: true, EndHeaders: true})
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(get...), EndStream: true, EndHeaders: true})
		_ = f.WriteRSTStream(3, xhttp2.ErrCodeCancel)
		_ = f.WritePing(false, [8]byte{1})
	})
	record(func(f *xhttp2.Framer, head func(...string) []byte) {
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(post...), EndHeaders: true, PadLength: 3,
			Priority: xhttp2.PriorityParam{StreamDep: 5, Weight: 1}})
		_ = f.WriteDataPadded(1, false, []byte("hel"), make([]byte, 4))
		_ = f.WriteData(1, false, []byte("lo"))
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("x-sum", "1", "content-length", "7"), EndStream: true, EndHeaders: true})
		_ = f.WriteWindowUpdate(0, 1000)
		_ = f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 3}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize})
	})
	record(func(f *xhttp2.Framer, head func(...string) []byte) {
		block := head(append(get, "x-large", "value")...)
		_ = f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5], EndStream: true})
		_ = f.WriteContinuation(1, false, block[5:8])
		_ = f.WriteContinuation(1, true, block[8:])
		_ = f.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
		_ = f.WritePriority(7, xhttp2.PriorityParam{StreamDep: 1})
		_ = f.WriteRawFrame(0x77, 1, 1, []byte("unknown"))
	})
	return all
}
