package sdk_test

import (
	"errors"
	"fmt"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

// asker talks with a service for each request, as the field x-do says, and has the
// request wait for "go".
type asker struct{ t *testing.T }

// chat is one conversation.
type chat struct {
	r    *sdk.Request
	seen string
}

func (a *asker) OnRequest(r *sdk.Request) sdk.Action {
	c := &chat{r: r}
	s, err := r.OpenGRPC(sdk.GRPCCall{Service: "echo", Method: r.Header.Get("x-method"), Metadata: []sdk.Field{{Name: "x-from", Value: "me"}}}, c)
	if err != nil {
		r.Header.Set("x-seen", err.Error())
		return sdk.Continue
	}
	if err := s.Send([]byte("one")); err != nil {
		a.t.Error(err)
	}
	if r.Header.Get("x-do") == "leave" {
		return sdk.Continue
	}
	return s.Wait()
}

func (c *chat) note(format string, arguments ...any) sdk.Action {
	c.seen += fmt.Sprintf(format, arguments...) + "; "
	return sdk.Hold
}

func (c *chat) OnGRPCMetadata(_ *sdk.GRPCStream, h sdk.Header) sdk.Action {
	return c.note("head %s", h.Get("x-up"))
}

func (c *chat) OnGRPCMessage(s *sdk.GRPCStream, message []byte) sdk.Action {
	c.note("%s", message)
	var err error
	switch c.r.Header.Get("x-do") {
	case "close":
		err = s.CloseSend()
	case "last":
		err = s.SendLast([]byte("two"))
	case "cancel":
		s.Cancel()
		s.Cancel()
		c.note("%v", s.Send([]byte("late")))
		c.r.Header.Set("x-seen", c.seen)
		return sdk.Continue
	case "refuse":
		return c.r.Respond(403, nil, nil)
	}
	if err != nil {
		c.note("%v", err)
	}
	return sdk.Hold
}

func (c *chat) OnGRPCTrailers(_ *sdk.GRPCStream, h sdk.Header) sdk.Action {
	return c.note("trailers %s", h.Get("x-end"))
}

func (c *chat) OnGRPCClose(s *sdk.GRPCStream, err error) sdk.Action {
	c.note("closed %v, %v", err, s.CloseSend())
	c.r.Header.Set("x-seen", c.seen)
	return sdk.Continue
}

// TestGRPCStreams: messages go and come; the handler ends its side, or all of it; an
// exchange that is over takes its streams with it.
func TestGRPCStreams(t *testing.T) {
	const closed = "closed <nil>, the stream is over; "
	for _, c := range []struct {
		name, method, do, want string
		status                 string
		cancelled              bool
	}{
		{name: "closed", do: "close", want: "head hi me; one!; trailers bye; " + closed},
		{name: "a last message", do: "last", want: "head hi me; one!; two!; send on a stream: host: internal failure; trailers bye; " + closed},
		{name: "cancelled", do: "cancel", want: "head hi me; one!; the stream is over; ", cancelled: true},
		{name: "failed", method: "test.Echo/Fail", want: "head ; trailers ; closed grpc status 7: not you, the stream is over; "},
		{name: "the client is answered", do: "refuse", status: "403", cancelled: true},
		{name: "the exchange goes on and ends", do: "leave", cancelled: true},
		{name: "a method that is none", method: "Say", want: `call method "Say": want package.Service/Method`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := policytest.Start(t, func(struct{}) (sdk.Handler, error) { return &asker{t}, nil }, "")
			var stream *policytest.Stream
			p.Host().Stream("echo", func(s *policytest.Stream, message string, end bool) {
				stream = s
				if s.Method == "test.Echo/Fail" {
					s.End(7, "not you", nil)
					return
				}
				s.Head(policytest.Fields("x-up", "hi "+s.Metadata.Get("x-from")))
				if message != "" {
					s.Send(message + "!")
				}
				if end {
					s.End(0, "", policytest.Fields("x-end", "bye"))
				}
			})
			method := "test.Echo/Chat"
			if c.method != "" {
				method = c.method
			}
			x := p.Do(policytest.Exchange{Request: policytest.Message{Header: policytest.Fields("x-do", c.do, "x-method", method)}})
			if got := x.Request.Header.Get("x-seen"); got != c.want && c.status == "" {
				t.Errorf("seen %q, want %q", got, c.want)
			}
			if c.status != "" && x.Status() != c.status {
				t.Errorf("status %s", x.Status())
			}
			if stream != nil && stream.Cancelled != c.cancelled {
				t.Errorf("cancelled: %v", stream.Cancelled)
			}
		})
	}
}

// feed keeps a stream of the sandbox's own.
type feed struct{ heard []string }

func (f *feed) OnTick() {}

func (f *feed) OnGRPCMessage(_ *sdk.GRPCStream, message []byte) sdk.Action {
	f.heard = append(f.heard, string(message))
	return sdk.Continue
}

// TestAStreamOfTheSandbox is opened when the handler is made, and heard whenever its
// service says something.
func TestAStreamOfTheSandbox(t *testing.T) {
	host, f := policytest.NewHost(), &feed{}
	var service *policytest.Stream
	host.Stream("news", func(s *policytest.Stream, message string, _ bool) {
		service = s
		s.Send("welcome, " + message)
	})
	p := policytest.StartOn(t, host, func(struct{}) (sdk.Handler, error) {
		s, err := sdk.OpenGRPC(sdk.GRPCCall{Service: "news", Method: "news.Feed/Listen"}, f)
		return f, errors.Join(err, s.Send([]byte("me")))
	}, "")
	service.Send("first")
	p.Tick()
	service.End(14, "gone", nil)
	p.Tick()
	service.Send("nobody hears it")
	p.Tick()
	if got := fmt.Sprint(f.heard); got != "[welcome, me first]" {
		t.Errorf("heard %v", got)
	}
	if _, err := sdk.OpenGRPC(sdk.GRPCCall{Service: "news", Method: "a/b"}, f); err == nil {
		t.Error("opened outside of a sandbox")
	}
}
