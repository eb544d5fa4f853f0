// Command talk is a plugin that uses what a handler may ask for beside HTTP: gRPC, queues
// and time. The field x-do says what.
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

func (t *talk) OnQueue(_ sdk.Queue, message []byte) {
	if err := sdk.SetShared("talk/heard", append([]byte("heard "), message...), sdk.Always); err != nil {
		sdk.Errorf("keep what was heard: %v", err)
	}
}

func init() { sdk.Register(newTalk) }

func main() {}
