package sdk_test

import (
	"errors"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// speaker sends what it sees to a queue, and asks a gRPC service.
type speaker struct{ queue sdk.Queue }

func (s *speaker) OnRequest(r *sdk.Request) sdk.Action {
	if err := s.queue.Send([]byte(r.Path())); err != nil {
		sdk.Errorf("%v", err)
	}
	method := r.Header.Get("x-method")
	if method == "" {
		return sdk.Continue
	}
	return r.CallGRPC(sdk.GRPCCall{Service: "echo", Method: method, Message: []byte("hello"), Metadata: []sdk.Field{{Name: "x-from", Value: "me"}}},
		func(reply *sdk.GRPCReply) sdk.Action {
			text := string(reply.Message)
			if reply.Err != nil {
				text = reply.Err.Error()
			}
			r.Header.Set("x-got", text)
			return sdk.Continue
		})
}

// listener counts what it hears.
type listener struct{ heard []string }

func (l *listener) OnQueue(_ sdk.Queue, message []byte) { l.heard = append(l.heard, string(message)) }

// TestQueues: who has opened a queue is told of each message, whoever sends it.
func TestQueues(t *testing.T) {
	host, l := policytest.NewHost(), &listener{}
	missing := policytest.Refusal(t, func(struct{}) (sdk.Handler, error) {
		_, err := sdk.FindQueue("news")
		return l, err
	}, "")
	if !strings.Contains(missing, `find queue "news": host: not found`) {
		t.Errorf("a queue that nobody has opened: %q", missing)
	}
	policytest.StartOn(t, host, func(struct{}) (sdk.Handler, error) {
		_, err := sdk.OpenQueue("news")
		return l, err
	}, "")
	for _, path := range []string{"/one", "/two"} {
		p := policytest.StartOn(t, host, func(struct{}) (sdk.Handler, error) {
			q, err := sdk.FindQueue("news")
			return &speaker{q}, err
		}, "")
		p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields(":path", path)}})
	}
	if got := strings.Join(l.heard, " "); got != "/one /two" {
		t.Errorf("heard %q", got)
	}
}

// TestCallGRPC: a message, a status, and no answer.
func TestCallGRPC(t *testing.T) {
	p := policytest.Start(t, func(struct{}) (sdk.Handler, error) {
		q, err := sdk.OpenQueue("q")
		return &speaker{q}, err
	}, "")
	p.Host().Service("echo", func(r policytest.Message) (policytest.Message, error) {
		switch r.Header.Get(":path") {
		case "/test.Echo/Fail":
			return policytest.Message{Header: policytest.Fields("grpc-status", "7", "grpc-message", "not you")}, nil
		case "/test.Echo/Down":
			return policytest.Message{}, errors.New("connection refused")
		}
		return policytest.Message{Body: r.Header.Get("x-from") + ": " + r.Body + "!"}, nil
	})
	for method, want := range map[string]string{
		"test.Echo/Say":  "me: hello!",
		"test.Echo/Fail": "grpc status 7: not you",
		"test.Echo/Down": "grpc status 14: connection refused",
		"Say":            `call method "Say": want package.Service/Method`,
	} {
		x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-method", method)}})
		if got := x.Request.Header.Get("x-got"); got != want {
			t.Errorf("%s: %q, want %q", method, got, want)
		}
	}
}
