// Command talk is a plugin that uses what a handler may ask for beside HTTP: gRPC, queues,
// time and trailers. The field x-do says what.
package main

import (
	"errors"
	"strings"
	"time"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

type talk struct{ queue sdk.Queue }

func newTalk(struct{}) (sdk.Handler, error) {
	q, err := sdk.OpenQueue("talk")
	return &talk{q}, err
}

func (t *talk) OnRequest(r *sdk.Request) sdk.Action {
	take := func(text string) sdk.Action {
		r.Header.Set("x-take", text)
		return sdk.Continue
	}
	verb, argument, _ := strings.Cut(r.Header.Get("x-do"), " ")
	switch verb {
	case "grpc":
		return r.CallGRPC(sdk.GRPCCall{
			Service: "echo", Method: "test.Echo/" + argument, Metadata: []sdk.Field{{Name: "x-from", Value: "sdk"}}, Message: []byte("hello"), Timeout: time.Minute,
		}, func(reply *sdk.GRPCReply) sdk.Action {
			var failed *sdk.GRPCError
			if errors.As(reply.Err, &failed) {
				return r.Respond(403, nil, []byte(failed.Error()))
			}
			return take(string(reply.Message))
		})
	case "chat":
		s, err := r.OpenGRPC(sdk.GRPCCall{Service: "echo", Method: "test.Echo/Chat", Metadata: []sdk.Field{{Name: "x-from", Value: "sdk"}}}, &chat{r: r, end: argument})
		if err == nil {
			err = s.Send([]byte("one"))
		}
		if err != nil {
			return take(err.Error())
		}
		return s.Wait()
	case "send":
		if err := t.queue.Send([]byte(argument)); err != nil {
			return take(err.Error())
		}
		return r.WaitShared("talk/heard", sdk.Absent, time.Minute, func(bool) sdk.Action {
			heard, _, _ := sdk.GetShared("talk/heard")
			return take(string(heard))
		})
	case "sleep":
		return r.Sleep(time.Millisecond, func() sdk.Action { return take("slept") })
	}
	return take("nothing")
}

// chat is a conversation that the request waits for.
type chat struct {
	r         *sdk.Request
	end, seen string
}

func (c *chat) OnGRPCMetadata(_ *sdk.GRPCStream, h sdk.Header) sdk.Action {
	c.seen = h.Get("x-up")
	return sdk.Hold
}

func (c *chat) OnGRPCMessage(s *sdk.GRPCStream, message []byte) sdk.Action {
	c.seen += " " + string(message)
	if c.end == "cancel" {
		s.Cancel()
		c.r.Header.Set("x-take", c.seen)
		return sdk.Continue
	}
	if string(message) == "one!" {
		if err := s.SendLast([]byte("two")); err != nil {
			sdk.Errorf("send: %v", err)
		}
	}
	return sdk.Hold
}

func (c *chat) OnGRPCTrailers(_ *sdk.GRPCStream, h sdk.Header) sdk.Action {
	c.seen += " " + h.Get("x-up-trailer")
	return sdk.Hold
}

func (c *chat) OnGRPCClose(_ *sdk.GRPCStream, err error) sdk.Action {
	if err != nil {
		c.seen += " " + err.Error()
	}
	c.r.Header.Set("x-take", c.seen)
	return sdk.Continue
}

// OnRequestBody wants all of it, in capitals.
func (t *talk) OnRequestBody(r *sdk.Request) sdk.Action {
	if !r.End {
		return sdk.Hold
	}
	r.Body.Replace([]byte(strings.ToUpper(string(r.Body.Bytes()))))
	return sdk.Continue
}

func (t *talk) OnRequestTrailers(r *sdk.Request) sdk.Action {
	r.Trailers.Set("x-sum", r.Trailers.Get("x-sum")+" checked")
	r.Trailers.Del("x-secret")
	return sdk.Continue
}

func (t *talk) OnResponseTrailers(r *sdk.Response) sdk.Action {
	r.Trailers.Add("x-end", r.Trailers.Get("x-end")+"!")
	return sdk.Continue
}

func (t *talk) OnQueue(_ sdk.Queue, message []byte) {
	if err := sdk.SetShared("talk/heard", append([]byte("heard "), message...), sdk.Always); err != nil {
		sdk.Errorf("keep what was heard: %v", err)
	}
}

func init() { sdk.Register(newTalk) }

func main() {}
