package wasm

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirmesh/weir/proxy/exchange"
)

// read returns the messages of a body that comes in these pieces.
func readFrames(chunks []string, limit int) (messages []string, err error) {
	in := frames{body: &pieces{chunks}, limit: limit}
	for {
		m, err := in.next()
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

func TestFramesAreCutHoweverTheyCome(t *testing.T) {
	body := string(appendFrame(appendFrame(appendFrame(nil, []byte("one")), nil), []byte("three")))
	for n := 1; n <= len(body); n++ {
		var chunks []string
		for rest := body; rest != ""; {
			size := min(n, len(rest))
			chunks, rest = append(chunks, rest[:size]), rest[size:]
		}
		got, err := readFrames(chunks, 100)
		if diff := cmp.Diff([]string{"one", "", "three"}, got); diff != "" || err != io.EOF {
			t.Errorf("in pieces of %d: %v %s", n, err, diff)
		}
	}
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"cut":        {body[:len(body)-1], errCut},
		"compressed": {"\x01" + body[1:], errCompressed},
		"too long":   {"\x00\xff\xff\xff\xff", errAnswerTooLarge},
		"nothing":    {"", io.EOF},
	} {
		var chunks []string
		if c.body != "" {
			chunks = []string{c.body}
		}
		if _, err := readFrames(chunks, 100); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzFrames: what is read was sent, and no more of it is kept than is allowed.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02ab\x00\x00\x00\x00\x00"), 3)
	f.Add([]byte("\x00\xff\xff\xff\xffab"), 1)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		cut = min(max(cut, 0), len(body))
		chunks := []string{}
		for _, c := range []string{string(body[:cut]), string(body[cut:])} {
			if c != "" {
				chunks = append(chunks, c)
			}
		}
		messages, err := readFrames(chunks, 1000)
		var again []byte
		for _, m := range messages {
			again = appendFrame(again, []byte(m))
		}
		if !bytes.HasPrefix(body, again) || err == io.EOF && len(again) != len(body) {
			t.Errorf("%q of %q, %v", messages, body, err)
		}
	})
}

// TestAServiceIsNamedInTwoWays: plainly, or by Envoy's message.
func TestAServiceIsNamedInTwoWays(t *testing.T) {
	inner := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "users")
	message := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
	for given, want := range map[string]string{
		"users": "users", string(message): "users", string(message[:len(message)-1]): string(message[:len(message)-1]), "": "", "\n\x05hello": "\n\x05hello",
	} {
		if got := serviceName([]byte(given)); string(got) != want {
			t.Errorf("%q is %q, want %q", given, got, want)
		}
	}
}

func FuzzServiceName(f *testing.F) {
	f.Add([]byte("users"))
	f.Add([]byte("\n\x07\n\x05users"))
	f.Fuzz(func(t *testing.T, given []byte) {
		if name := serviceName(given); !bytes.Contains(given, name) {
			t.Errorf("%q is called %q", given, name)
		}
	})
}

// TestHowACallOfGRPCEnds: in trailers, in a head that nothing follows, or not at all.
func TestHowACallOfGRPCEnds(t *testing.T) {
	for name, c := range map[string]struct {
		status         int
		head, trailers string // grpc-status
		message        string
		code           uint32
		want           string
	}{
		"well":              {status: 200, trailers: "0"},
		"with a reason":     {status: 200, trailers: "7", message: "100%25 no", code: 7, want: "100% no"},
		"a head alone":      {status: 200, head: "5", code: 5},
		"without a status":  {status: 200, code: 2, want: "the service ended the call without a status"},
		"a status of words": {status: 200, trailers: "none of it, and more", code: 2, want: "the service ended the call without a status"},
		"no gRPC at all":    {status: 503, code: 14, want: "the service answered with status 503"},
	} {
		r := exchange.Response{Status: c.status}
		if c.head != "" {
			r.Fields.Add([]byte("grpc-status"), []byte(c.head))
		}
		if c.trailers != "" {
			r.Trailers.Add([]byte("grpc-status"), []byte(c.trailers))
			r.Trailers.Add([]byte("grpc-message"), []byte(c.message))
		}
		err := grpcStatus(&r)
		var status *statusError
		if c.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.As(err, &status) || status.code != c.code || status.message != c.want {
			t.Errorf("%s: %+v", name, err)
		}
	}
}
