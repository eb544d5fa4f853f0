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
	"github.com/weirmesh/weir/proxy/upstream"
)

// Whatever a service sends, every exchange ends, and what is taken for an answer
// could be sent on by HTTP/1.1 without becoming something else.
func FuzzClient(f *testing.F) {
	for _, seed := range answers() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		c := http2.ClientOn(ours)
		read := make(chan struct{})
		go func() { defer close(read); io.Copy(io.Discard, theirs) }()
		ended := make(chan struct{})
		go func() { defer close(ended); c.Run() }()
		served := make(chan struct{}, 2)
		for _, method := range []string{"GET", "HEAD"} {
			go func() {
				defer func() { served <- struct{}{} }()
				x := asking(method, nil)
				lane := c.Lane()
				if err := lane.Open(t.Context(), x, &upstream.Options{Stall: time.Second}); err == nil {
					checkAnswer(t, x)
				}
				lane.Close(x)
			}()
		}
		io.WriteString(theirs, "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		theirs.Write(data)
		theirs.Close()
		<-served
		<-served
		<-ended
		<-read
	})
}

func checkAnswer(t *testing.T, x *exchange.Exchange) {
	r := &x.Response
	if r.Status < 200 || r.Status > 999 {
		t.Errorf("a final answer with status %d", r.Status)
	}
	got, length := int64(0), int64(-1)
	if r.Body != nil {
		length = r.Body.Length()
		for {
			chunk, err := r.Body.Next()
			if err == io.EOF {
				if length >= 0 && got != length {
					t.Errorf("a body of %d bytes has %d", length, got)
				}
				break
			}
			if err != nil {
				break
			}
			if len(chunk) == 0 {
				t.Error("an empty chunk")
			}
			got += int64(len(chunk))
		}
	}
	for _, fields := range []*exchange.Fields{&r.Fields, &r.Trailers} {
		for i := range fields.Len() {
			f := fields.At(i)
			if !exchange.ValidName(f.Name) || bytes.ContainsAny(f.Value, "\r\n\x00") {
				t.Errorf("the field %q: %q", f.Name, f.Value)
			}
			if fields == &r.Trailers && !http1.MayTrail(f.Name) {
				t.Errorf("the trailer %q", f.Name)
			}
		}
	}
}

// answers are what a service may send to begin with.
func answers() (all [][]byte) {
	script := func(write func(f *xhttp2.Framer, head func(pairs ...string) []byte)) {
		var out, block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		f := xhttp2.NewFramer(&out, nil)
		f.AllowIllegalWrites = true
		write(f, func(pairs ...string) []byte {
			block.Reset()
			for i := 0; i < len(pairs); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
			}
			return bytes.Clone(block.Bytes())
		})
		all = append(all, out.Bytes())
	}
	script(func(f *xhttp2.Framer, head func(...string) []byte) {
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200", "content-length", "5"), EndHeaders: true})
		f.WriteData(1, true, []byte("hello"))
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: head(":status", "404"), EndHeaders: true, EndStream: true})
	})
	script(func(f *xhttp2.Framer, head func(...string) []byte) {
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "103", "link", "x"), EndHeaders: true})
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head(":status", "200"), EndHeaders: true, PadLength: 5})
		f.WriteDataPadded(1, false, []byte("hello"), make([]byte, 7))
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: head("grpc-status", "0"), EndHeaders: true, EndStream: true})
		f.WriteGoAway(1, xhttp2.ErrCodeNo, nil)
	})
	script(func(f *xhttp2.Framer, head func(...string) []byte) {
		f.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 10}, xhttp2.Setting{ID: xhttp2.SettingHeaderTableSize, Val: 0})
		block := head(":status", "200", "x", "y")
		f.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: block[:1]})
		f.WriteContinuation(3, true, block[1:])
		f.WriteWindowUpdate(3, 100)
		f.WritePing(false, [8]byte{1})
		f.WriteRSTStream(1, xhttp2.ErrCodeRefusedStream)
		f.WriteRSTStream(3, xhttp2.ErrCodeCancel)
	})
	return all
}
